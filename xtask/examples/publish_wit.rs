//! The versions of the contract as WIT packages: as files, and as artifacts of a registry in the
//! form of `wkg publish`. Run by `cargo xtask publish-wit`.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail};
use clap::Parser;
use paygress_oci::{Error, Package, Reference, Registry, RegistryOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};
use wit_component::WitPrinter;
use wit_parser::{PackageId, Resolve};

/// What is read of a package that is there already; ours have some 40 KB.
const PACKAGE_BYTES: usize = 1 << 20;

#[derive(Parser)]
struct Arguments {
    /// The directory with a directory for each version.
    wit: PathBuf,
    /// The directory to write the packages into.
    files: PathBuf,
    /// A registry with a prefix, below which the packages are published.
    reference: Option<String>,
    /// The file with credentials, as docker's config.json or podman's auth.json.
    #[arg(long, env = "REGISTRY_AUTH_FILE")]
    auth: Option<PathBuf>,
}

/// A version of the contract.
struct WitPackage {
    namespace: String,
    name: String,
    version: String,
    /// Its interfaces and worlds.
    exports: Vec<String>,
    /// Encoded as a component.
    component: Vec<u8>,
}

/// What is at the tag of a version.
#[derive(Debug, PartialEq, Eq)]
enum Published {
    New(Reference),
    /// The same contract, perhaps with other comments or in another encoding. Its digest stays,
    /// since authors have it in their lock files.
    Before(Reference),
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New(reference) => write!(f, "published: {reference}"),
            Self::Before(reference) => write!(f, "was there: {reference}"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { wit, files, reference, auth } = Arguments::parse();
    let packages = contract(&wit)?;
    fs::create_dir_all(&files).with_context(|| format!("{} cannot be made", files.display()))?;
    for package in &packages {
        let file = files.join(package.file_name());
        fs::write(&file, &package.component)
            .with_context(|| format!("{} cannot be written", file.display()))?;
        println!("   written: {}", file.display());
    }
    let Some(reference) = reference else { return Ok(()) };
    let options = RegistryOptions { auth_file: auth, ..RegistryOptions::default() };
    let registry = Registry::open(options).await?;
    for package in &packages {
        println!("   {}", package.publish(&registry, &reference).await?);
    }
    Ok(())
}

/// The versions in a directory, each in a directory of its own.
fn contract(directory: &Path) -> Result<Vec<WitPackage>> {
    let unreadable = || format!("{} cannot be read", directory.display());
    let entries = fs::read_dir(directory).with_context(unreadable)?;
    let versions = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut versions = versions.collect::<io::Result<Vec<PathBuf>>>().with_context(unreadable)?;
    versions.sort();
    versions.iter().map(|version| WitPackage::read(version)).collect()
}

impl WitPackage {
    fn read(directory: &Path) -> Result<Self> {
        let mut resolve = Resolve::default();
        let (id, _) = resolve.push_dir(directory)?;
        let package = resolve.packages.get(id).context("the package is not there")?;
        let version = package.name.version.as_ref();
        let version = version.with_context(|| format!("{} has no version", package.name))?;
        let names = package.interfaces.keys().chain(package.worlds.keys());
        // Sorted: the same package always has the same digest.
        let exports: BTreeSet<String> = names.map(|name| resolve.id_of_name(id, name)).collect();
        Ok(Self {
            namespace: package.name.namespace.clone(),
            name: package.name.name.clone(),
            version: version.to_string(),
            exports: exports.into_iter().collect(),
            component: wit_component::encode(&resolve, id)?,
        })
    }

    /// As `wkg get` names it.
    fn file_name(&self) -> String {
        format!("{}_{}@{}.wasm", self.namespace, self.name, self.version)
    }

    /// Where `wkg` looks for it.
    fn reference(&self, base: &str) -> Result<Reference> {
        let Self { namespace, name, version, .. } = self;
        let text = format!("{}/{namespace}/{name}:{version}", base.trim_end_matches('/'));
        text.parse().with_context(|| format!("{text} is not a reference: write registry/prefix"))
    }

    /// Pushes it, unless its version is there. A version that is another contract is never replaced.
    async fn publish(&self, registry: &Registry, base: &str) -> Result<Published> {
        let (reference, ours) = (self.reference(base)?, types(&self.component)?);
        match registry.pull(&reference, PACKAGE_BYTES).await {
            Ok(there) if types(&there.component).is_ok_and(|types| types == ours) => {
                return Ok(Published::Before(reference.pinned(there.manifest_digest)));
            }
            Ok(_) => bail!(
                "another contract is at {reference}: add a version to wit/, a published one is never changed"
            ),
            // Of what is not there, some registries say that it may not be read.
            Err(Error::NotFound(_) | Error::Denied { .. } | Error::Unauthenticated { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let annotation = |name: &str, value: &str| {
            (format!("org.opencontainers.image.{name}"), value.to_owned())
        };
        let annotations = BTreeMap::from([
            annotation("description", "The contract between Paygress and its policies"),
            annotation("licenses", env!("CARGO_PKG_LICENSE")),
            annotation("version", &self.version),
        ]);
        let package = Package {
            component: &self.component,
            exports: &self.exports,
            imports: &[],
            author: None,
            created: None,
            annotations: &annotations,
        };
        let digest = registry.push(&reference, &package).await?;
        Ok(Published::New(reference.pinned(digest)))
    }
}

/// A package's text, without comments: the contract itself.
fn types(component: &[u8]) -> Result<String> {
    let decoded = wit_component::decode(component)?;
    let mut printer = WitPrinter::default();
    printer.emit_docs(false);
    printed(printer, decoded.resolve(), decoded.package())
}

fn printed(mut printer: WitPrinter, resolve: &Resolve, package: PackageId) -> Result<String> {
    printer.print(resolve, package, &[])?;
    Ok(printer.output.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_oci::Digest;
    use paygress_oci::testing::{RequiredAuth, TestRegistry};
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use wit_component::DecodedWasm;

    /// Of `user:password`.
    const BASIC: &str = "dXNlcjpwYXNzd29yZA==";

    fn wit() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
    }

    /// A registry that requires credentials, and a client that has them.
    struct Fixture {
        server: TestRegistry,
        client: Registry,
        directory: TempDir,
    }

    impl Fixture {
        async fn new() -> Self {
            let auth = RequiredAuth::Basic("user:password".to_owned());
            let server = TestRegistry::open(auth).await.unwrap();
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("config.json");
            let auths = json!({"auths": {server.host(): {"auth": BASIC}}});
            fs::write(&file, auths.to_string()).unwrap();
            let client = Registry::new(Some(&file)).unwrap();
            Self { server, client, directory }
        }

        fn base(&self) -> String {
            format!("{}/some/prefix", self.server.host())
        }

        async fn publish(&self, package: &WitPackage) -> Result<Published> {
            package.publish(&self.client, &self.base()).await
        }

        /// What a client that is not ours gets of the package's repository.
        async fn get(&self, path: &str) -> Vec<u8> {
            let host = self.server.host();
            let mut stream = TcpStream::connect(&host).await.unwrap();
            let request = format!(
                "GET /v2/some/prefix/paygress/policy/{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Basic {BASIC}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}");
            let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
            answer.split_off(end).split_off(4)
        }

        async fn get_json(&self, path: &str) -> Value {
            serde_json::from_slice(&self.get(path).await).unwrap()
        }

        /// The blobs of an artifact, its configuration and its only layer, as `wkg get` fetches and
        /// checks them.
        async fn fetch(&self, version: &str) -> (Value, Vec<u8>) {
            let manifest = self.get_json(&format!("manifests/{version}")).await;
            assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
            let [layer] = manifest["layers"].as_array().unwrap().as_slice() else {
                panic!("{manifest}")
            };
            assert_eq!(layer["mediaType"], "application/wasm");
            let config = &manifest["config"];
            assert_eq!(config["mediaType"], "application/vnd.wasm.config.v0+json");
            let annotations = &manifest["annotations"];
            assert_eq!(annotations["org.opencontainers.image.version"], version);
            let digest = config["digest"].as_str().unwrap();
            let config = self.get_json(&format!("blobs/{digest}")).await;
            assert_eq!(config["layerDigests"], json!([layer["digest"]]));
            let digest = layer["digest"].as_str().unwrap();
            let bytes = self.get(&format!("blobs/{digest}")).await;
            assert_eq!(Digest::of(&bytes).to_string(), digest);
            (config, bytes)
        }
    }

    /// A contract of one version in a directory, as its files are changed.
    fn changed(directory: &TempDir, change: impl Fn(&str) -> String) -> WitPackage {
        let copy = directory.path().join("changed");
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(wit().join("1.3")).unwrap() {
            let path = entry.unwrap().path();
            let text = change(&fs::read_to_string(&path).unwrap());
            fs::write(copy.join(path.file_name().unwrap()), text).unwrap();
        }
        WitPackage::read(&copy).unwrap()
    }

    #[tokio::test]
    async fn each_version_is_fetched_as_wkg_does_it() {
        let fixture = Fixture::new().await;
        let versions = ["1.0.0", "1.1.0", "1.2.0", "1.3.0"];
        let packages = contract(&wit()).unwrap();
        assert_eq!(packages.iter().map(|package| &package.version).collect::<Vec<_>>(), versions);
        for (package, version) in packages.iter().zip(versions) {
            assert_eq!(package.file_name(), format!("paygress_policy@{version}.wasm"));
            let published = fixture.publish(package).await.unwrap();
            let Published::New(reference) = published else { panic!("{published:?}") };
            assert_eq!(reference.repository(), "some/prefix/paygress/policy");
            let (config, bytes) = fixture.fetch(version).await;
            for (field, value) in [("architecture", "wasm"), ("os", "wasip2")] {
                assert_eq!(config[field], value, "{config}");
            }
            let exports = config["component"]["exports"].as_array().unwrap();
            for name in ["pricing", "types", "pricing-policy"] {
                let name = format!("paygress:policy/{name}@{version}");
                assert!(exports.contains(&json!(name)), "{name}: {config}");
            }
            let decoded = wit_component::decode(&bytes).unwrap();
            assert!(matches!(decoded, DecodedWasm::WitPackage(..)), "a WIT package");
            let mut source = Resolve::default();
            let directory = wit().join(version.strip_suffix(".0").unwrap());
            let (id, _) = source.push_dir(directory).unwrap();
            // With its comments, which are what authors read.
            let expected = printed(WitPrinter::default(), &source, id).unwrap();
            let fetched =
                printed(WitPrinter::default(), decoded.resolve(), decoded.package()).unwrap();
            assert_eq!(fetched, expected);
            assert!(fetched.contains(&format!("package paygress:policy@{version};")));
            assert!(fetched.contains("/// The types that the slots share."), "{fetched}");
        }
    }

    #[tokio::test]
    async fn a_published_version_stays_as_it_is() {
        let fixture = Fixture::new().await;
        let other_comments = changed(&fixture.directory, |text| {
            text.replace("The types that the slots share.", "Types.")
        });
        let published = fixture.publish(&other_comments).await.unwrap();
        let Published::New(first) = published else { panic!("{published:?}") };
        let ours = contract(&wit()).unwrap().pop().unwrap();
        assert_ne!(ours.component, other_comments.component);
        let _ = fixture.server.take_requests();
        assert_eq!(fixture.publish(&ours).await.unwrap(), Published::Before(first));
        let requests = fixture.server.take_requests();
        assert!(requests.iter().all(|request| request.method == "GET"), "{requests:?}");

        let other_types =
            changed(&fixture.directory, |text| text.replace("percent: u8", "percent: u16"));
        let refused = fixture.publish(&other_types).await.unwrap_err().to_string();
        assert!(refused.contains("another contract is at "), "{refused}");
        assert_eq!(fixture.fetch("1.3.0").await.1, other_comments.component);
    }

    #[tokio::test]
    async fn without_credentials_nothing_is_published() {
        let fixture = Fixture::new().await;
        let packages = contract(&wit()).unwrap();
        let without = Registry::new(None).unwrap();
        let refused = packages[0].publish(&without, &fixture.base()).await.unwrap_err();
        assert!(refused.to_string().contains("requires credentials"), "{refused}");
        let unusable = packages[0].reference("registry.example/policies:1").unwrap_err();
        assert!(unusable.to_string().contains("write registry/prefix"), "{unusable}");
    }
}
