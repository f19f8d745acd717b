//! `cargo xtask sbom`: what is built into an image, as CycloneDX. The same source and target make
//! the same document: it has neither a time nor a serial number.

use crate::run::{cargo, output, root};
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where scanners of images find it.
pub(crate) const IN_IMAGES: &str = "usr/share/paygress/sbom.cdx.json";

/// The registry whose packages have a purl.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Product {
    /// The service, its policies, and its web page.
    Service,
    /// The programs for pods.
    Ssh,
}

impl Product {
    const fn name(self) -> &'static str {
        match self {
            Self::Service => "paygress",
            Self::Ssh => "paygress-ssh",
        }
    }

    const fn crates(self) -> &'static [&'static str] {
        match self {
            Self::Service => &[
                "paygress",
                "paygress-plugin-duration",
                "paygress-plugin-images",
                "paygress-plugin-pod-template",
                "paygress-plugin-pricing",
            ],
            Self::Ssh => &["paygress-pod-nostr", "paygress-sshd"],
        }
    }

    const fn npm_lock(self) -> Option<&'static str> {
        match self {
            Self::Service => Some("host/http/web/package-lock.json"),
            Self::Ssh => None,
        }
    }
}

pub(crate) fn write(product: Product, target: &str, to: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&of(product, target)?)?;
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, format!("{text}\n")).with_context(|| format!("{} is not written", to.display()))
}

fn of(product: Product, target: &str) -> Result<Value> {
    let mut metadata = cargo(&["metadata", "--format-version", "1", "--quiet", "--locked"])?;
    let metadata = output(metadata.args(["--filter-platform", target]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let checksums = checksums(&fs::read_to_string(root().join("Cargo.lock"))?)?;
    let built = built(product.crates(), target)?;
    let mut parts = crates(&metadata, &checksums, product.crates(), &built)?;
    if let Some(path) = product.npm_lock() {
        let lock = fs::read_to_string(root().join(path)).context(path)?;
        parts.extend(npm_packages(&serde_json::from_str(&lock)?)?);
    }
    document(product.name(), &metadata, parts)
}

/// A component, and what it depends on, by their references.
struct Part {
    component: Value,
    depends_on: BTreeSet<String>,
    /// Whether the product itself names it.
    is_root: bool,
}

/// By their references.
type Parts = BTreeMap<String, Part>;

fn document(name: &str, metadata: &Value, parts: Parts) -> Result<Value> {
    let members = array(metadata, "packages")?;
    let own = members.iter().find(|package| package.get("name") == Some(&json!("paygress")));
    let version = text(own.context("cargo metadata: no paygress")?, "version")?;
    let roots: Vec<&String> =
        parts.iter().filter(|(_, part)| part.is_root).map(|(reference, _)| reference).collect();
    let mut dependencies = vec![json!({"ref": name, "dependsOn": roots})];
    for (reference, part) in &parts {
        dependencies.push(json!({"ref": reference, "dependsOn": part.depends_on}));
    }
    let components: Vec<Value> = parts.into_values().map(|part| part.component).collect();
    let product = json!({"type": "application", "bom-ref": name, "name": name, "version": version});
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": product},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Names and versions of what is compiled for these crates alone, with their features: `cargo
/// metadata` knows the features of the whole workspace only.
fn built(roots: &[&str], target: &str) -> Result<BTreeSet<(String, String)>> {
    let mut tree = cargo(&["tree", "--quiet", "--locked", "--edges", "normal,build"])?;
    tree.args(["--prefix", "none", "--format", "{p}", "--target", target]);
    for name in roots {
        tree.args(["--package", name]);
    }
    let name_and_version = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        Some((name.to_owned(), version.to_owned()))
    };
    Ok(output(&mut tree)?.lines().filter_map(name_and_version).collect())
}

/// What is compiled for these crates, build scripts and macros included.
fn crates(
    metadata: &Value,
    checksums: &BTreeMap<(String, String), String>,
    roots: &[&str],
    built: &BTreeSet<(String, String)>,
) -> Result<Parts> {
    let mut packages = BTreeMap::new();
    for package in array(metadata, "packages")? {
        let (name, version) = (text(package, "name")?, text(package, "version")?);
        if built.contains(&(name.to_owned(), version.to_owned())) {
            packages.insert(text(package, "id")?, package);
        }
    }
    let mut edges = BTreeMap::new();
    for node in array(metadata.get("resolve").context("cargo metadata: no resolve")?, "nodes")? {
        edges.insert(text(node, "id")?, dependencies(node)?);
    }
    let members = array(metadata, "workspace_members")?.iter().filter_map(Value::as_str);
    let mut open = Vec::new();
    for id in members {
        let Some(package) = packages.get(id) else { continue };
        if roots.contains(&text(package, "name")?) {
            open.push(id);
        }
    }
    let root_ids: BTreeSet<&str> = open.iter().copied().collect();
    let (mut seen, mut parts) = (root_ids.clone(), Parts::new());
    while let Some(id) = open.pop() {
        let package = packages.get(id).with_context(|| format!("cargo metadata: no {id}"))?;
        let mut depends_on = BTreeSet::new();
        for on in edges.get(id).into_iter().flatten().copied() {
            let Some(other) = packages.get(on) else { continue };
            depends_on.insert(reference(other)?);
            if seen.insert(on) {
                open.push(on);
            }
        }
        let component = component(package, checksums)?;
        let is_root = root_ids.contains(id);
        parts.insert(reference(package)?, Part { component, depends_on, is_root });
    }
    Ok(parts)
}

/// Of a node, without those of tests.
fn dependencies(node: &Value) -> Result<Vec<&str>> {
    let mut found = Vec::new();
    for dependency in array(node, "deps")? {
        let kinds = array(dependency, "dep_kinds")?;
        if kinds.iter().any(|kind| kind.get("kind") != Some(&json!("dev"))) {
            found.push(text(dependency, "pkg")?);
        }
    }
    Ok(found)
}

/// A purl for what is in the registry.
fn reference(package: &Value) -> Result<String> {
    let (name, version) = (text(package, "name")?, text(package, "version")?);
    Ok(match package.get("source").and_then(Value::as_str) {
        Some(REGISTRY) => format!("pkg:cargo/{name}@{version}"),
        _ => format!("{name}@{version}"),
    })
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let (name, version) = (text(package, "name")?, text(package, "version")?);
    let reference = reference(package)?;
    let license = package.get("license").and_then(Value::as_str);
    let mut component = library(&reference, name, version, license);
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component.insert("hashes".into(), json!([{"alg": "SHA-256", "content": checksum}]));
    }
    Ok(component.into())
}

fn library(
    reference: &str,
    name: &str,
    version: &str,
    license: Option<&str>,
) -> serde_json::Map<String, Value> {
    let mut component = serde_json::Map::new();
    component.insert("type".into(), "library".into());
    component.insert("bom-ref".into(), reference.into());
    component.insert("name".into(), name.into());
    component.insert("version".into(), version.into());
    if reference.starts_with("pkg:") {
        component.insert("purl".into(), reference.into());
    }
    if let Some(license) = license {
        // `/` is an older `OR`, which SPDX does not know.
        let parts: Vec<&str> = license.split('/').map(str::trim).collect();
        component.insert("licenses".into(), json!([{"expression": parts.join(" OR ")}]));
    }
    component
}

fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let packages = packages.context("Cargo.lock: no packages")?.iter();
    let checksums = packages.filter_map(|package| {
        let field = |name: &str| Some(package.get(name)?.as_str()?.to_owned());
        Some(((field("name")?, field("version")?), field("checksum")?))
    });
    Ok(checksums.collect())
}

/// Those that are more than a tool of the build.
fn npm_packages(lock: &Value) -> Result<Parts> {
    let packages = lock.get("packages").and_then(Value::as_object).context("npm: no packages")?;
    let used =
        packages.iter().filter(|(path, package)| !path.is_empty() && package.get("dev").is_none());
    let mut parts = Parts::new();
    for (path, package) in used {
        let name = path.rsplit("node_modules/").next().unwrap_or(path);
        let version = text(package, "version")?;
        let reference = format!("pkg:npm/{}@{version}", name.replacen('@', "%40", 1));
        let license = package.get("license").and_then(Value::as_str);
        let component = library(&reference, name, version, license).into();
        parts.insert(reference, Part { component, depends_on: BTreeSet::new(), is_root: true });
    }
    Ok(parts)
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value.get(key).and_then(Value::as_array).with_context(|| format!("there is no list {key}"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("there is no text {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the components.
    fn names(document: &Value) -> BTreeSet<&str> {
        let components = array(document, "components").unwrap().iter();
        components.map(|component| text(component, "name").unwrap()).collect()
    }

    #[test]
    fn what_is_compiled_is_named_and_what_tests_use_is_not() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": "MIT/ISC"});
        let on = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("paygress", json!(null)), package("used", json!(REGISTRY)),
                package("for-builds", json!(REGISTRY)), package("for-tests", json!(REGISTRY)),
                package("other", json!(null)), package("optional", json!(null)),
            ],
            "workspace_members": ["paygress", "other"],
            "resolve": {"nodes": [
                {"id": "paygress", "deps": [on("used", json!(null)), on("for-tests", json!("dev")), on("optional", json!(null))]},
                {"id": "used", "deps": [on("for-builds", json!("build"))]},
                {"id": "for-builds", "deps": []}, {"id": "for-tests", "deps": []},
                {"id": "other", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = 'used'\nversion = '1.0.0'\nchecksum = 'ab'\n";
        // What is optional, and used by tests, is an edge in both ways: it is not built.
        let built = ["paygress", "used", "for-builds", "for-tests", "other"]
            .map(|name| (name.to_owned(), "1.0.0".to_owned()));
        let parts = crates(&metadata, &checksums(lock).unwrap(), &["paygress"], &built.into());
        let parts = parts.unwrap();
        let document = document("paygress", &metadata, parts).unwrap();
        assert_eq!(names(&document), BTreeSet::from(["for-builds", "paygress", "used"]));
        let used = "pkg:cargo/used@1.0.0";
        let expected = json!({
            "type": "library", "bom-ref": used, "purl": used, "name": "used", "version": "1.0.0",
            "licenses": [{"expression": "MIT OR ISC"}],
            "hashes": [{"alg": "SHA-256", "content": "ab"}],
        });
        assert!(array(&document, "components").unwrap().contains(&expected), "{document:#}");
        let dependencies = array(&document, "dependencies").unwrap();
        let edges = |from: &str, to: &[&str]| json!({"ref": from, "dependsOn": to});
        assert_eq!(dependencies[0], edges("paygress", &["paygress@1.0.0"]));
        assert!(dependencies.contains(&edges("paygress@1.0.0", &[used])));
        assert!(dependencies.contains(&edges(used, &["pkg:cargo/for-builds@1.0.0"])));
    }

    #[test]
    fn npm_packages_are_named_without_those_of_the_build() {
        let lock = json!({"packages": {
            "": {}, "node_modules/@a/b": {"version": "1.0.0", "license": "MIT"},
            "node_modules/c": {"version": "2.0.0", "dev": true},
        }});
        let parts = npm_packages(&lock).unwrap();
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["pkg:npm/%40a/b@1.0.0"]);
    }

    #[test]
    fn the_documents_of_the_images_are_whole() {
        let target = "aarch64-unknown-linux-gnu";
        let service = of(Product::Service, target).unwrap();
        let ssh = of(Product::Ssh, target).unwrap();
        for name in ["wasmtime", "kube", "nostr-sdk", "cdk", "wit-bindgen", "@xterm/xterm"] {
            assert!(names(&service).contains(name), "{name}");
        }
        // Of the demo, and of tests and benchmarks.
        for name in ["paygress-sandbox", "criterion"] {
            assert!(!names(&service).contains(name), "{name}");
        }
        assert!(names(&ssh).contains("russh") && !names(&ssh).contains("wasmtime"));
        for document in [&service, &ssh] {
            let references: BTreeSet<&str> = array(document, "dependencies")
                .unwrap()
                .iter()
                .map(|edges| text(edges, "ref").unwrap())
                .collect();
            for edges in array(document, "dependencies").unwrap() {
                for on in array(edges, "dependsOn").unwrap() {
                    assert!(references.contains(on.as_str().unwrap()), "{on}");
                }
            }
            for component in array(document, "components").unwrap() {
                assert!(component.get("licenses").is_some(), "{component}");
                let is_ours = component.get("purl").is_none();
                let has_digest = component.get("hashes").is_some();
                let is_npm = !is_ours && text(component, "purl").unwrap().starts_with("pkg:npm/");
                assert!(has_digest || is_ours || is_npm, "{component}");
            }
        }
    }
}
