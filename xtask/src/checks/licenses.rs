//! The licenses and sources of what is built in: those that `deny.toml` allows. Advisories need a
//! database that is not at hand here: `cargo deny check advisories` fetches it.

use super::layers::{array, text};
use crate::run::{cargo, output, root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// The registry that cargo uses if nothing else is said.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check() -> Result<()> {
    let allowed = allowed(&std::fs::read_to_string(root().join("deny.toml"))?)?;
    let metadata = output(&mut cargo(&["metadata", "--format-version", "1", "--quiet"])?)?;
    let mut found = crates(&serde_json::from_str(&metadata)?, &allowed)?;
    let mut git = Command::new("git");
    git.args(["ls-files", "*package-lock.json"]).current_dir(root());
    for path in output(&mut git)?.lines() {
        let lock = std::fs::read_to_string(root().join(path)).context(path.to_owned())?;
        let refused = npm_packages(&serde_json::from_str(&lock)?, &allowed);
        found.extend(refused.into_iter().map(|package| format!("{path}: {package}")));
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("deny.toml does not allow:\n{}", found.join("\n"))
}

fn allowed(deny: &str) -> Result<BTreeSet<String>> {
    let deny: toml::Table = deny.parse().context("deny.toml")?;
    let allow = deny.get("licenses").and_then(|table| table.get("allow"));
    let allow = allow.and_then(toml::Value::as_array).context("deny.toml: no licenses.allow")?;
    Ok(allow.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
}

fn crates(metadata: &Value, allowed: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in array(metadata, "packages")? {
        let (name, version) = (text(package, "name")?, text(package, "version")?);
        let license = package.get("license").and_then(Value::as_str).unwrap_or_default();
        if !is_allowed(license, allowed) {
            found.push(format!("{name} {version}: license {license:?}"));
        }
        // Those of the workspace have none.
        let source = package.get("source").and_then(Value::as_str);
        if let Some(source) = source.filter(|source| *source != REGISTRY) {
            found.push(format!("{name} {version}: source {source}"));
        }
    }
    Ok(found)
}

/// Those that are more than a tool of the build.
fn npm_packages(lock: &Value, allowed: &BTreeSet<String>) -> Vec<String> {
    let packages = lock.get("packages").and_then(Value::as_object).into_iter().flatten();
    let used = packages.filter(|(path, package)| !path.is_empty() && package.get("dev").is_none());
    let refused = used.filter_map(|(path, package)| {
        let license = package.get("license").and_then(Value::as_str).unwrap_or_default();
        (!is_allowed(license, allowed)).then(|| format!("{path}: license {license:?}"))
    });
    refused.collect()
}

/// Whether an SPDX expression can be met by licenses that are allowed. `/` is an older `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let is_met = either(&mut words, allowed);
    is_met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut is_met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_met |= both(words, allowed);
    }
    is_met
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut is_met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is_met &= one(words, allowed);
    }
    is_met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => either(words, allowed) & (words.next() == Some(")")),
        Some(license) => match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
            Some(exception) => allowed.contains(&format!("{license} WITH {exception}")),
            None => allowed.contains(license),
        },
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn some() -> BTreeSet<String> {
        allowed("[licenses]\nallow = ['MIT', 'ISC', 'Apache-2.0 WITH LLVM-exception']").unwrap()
    }

    #[test]
    fn an_expression_is_met_by_what_is_allowed() {
        for met in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "GPL-3.0-only/MIT",
            "GPL-3.0-only / MIT",
            "MIT AND ISC",
            "(MIT OR GPL-3.0-only) AND ISC",
            "GPL-3.0-only AND GPL-2.0-only OR MIT",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
            "(Apache-2.0 WITH LLVM-exception)",
        ] {
            assert!(is_allowed(met, &some()), "{met}");
        }
        for refused in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR ISC) AND GPL-3.0-only",
            "Apache-2.0",
            "MIT WITH LLVM-exception",
            "(MIT",
            "MIT ISC",
            "OR MIT",
        ] {
            assert!(!is_allowed(refused, &some()), "{refused}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let package = |license, source| json!({"name": "a", "version": "1.0.0", "license": license, "source": source});
        let found = |package| crates(&json!({"packages": [package]}), &some()).unwrap();
        assert_eq!(found(package(json!("MIT"), json!(REGISTRY))), Vec::<String>::new());
        assert_eq!(found(package(json!("MIT"), json!(null))), Vec::<String>::new());
        assert_eq!(found(package(json!(null), json!(REGISTRY))), ["a 1.0.0: license \"\""]);
        let git = "git+https://git.example/a";
        assert_eq!(found(package(json!("ISC"), json!(git))), [format!("a 1.0.0: source {git}")]);
        let lock = json!({"packages": {
            "": {}, "node_modules/a": {"license": "GPL-3.0-only"},
            "node_modules/b": {"license": "GPL-3.0-only", "dev": true},
            "node_modules/c": {"license": "ISC"}, "node_modules/d": {},
        }});
        let expected = ["node_modules/a: license \"GPL-3.0-only\"", "node_modules/d: license \"\""];
        assert_eq!(npm_packages(&lock, &some()), expected);
    }

    #[test]
    fn the_tree_has_what_is_allowed() {
        check().unwrap();
    }
}
