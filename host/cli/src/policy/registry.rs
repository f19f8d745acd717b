//! Components to registries and back, and whose they are.
#![allow(clippy::print_stdout)]

use super::Component;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use paygress_oci::{ComponentFetcher, Keys, Package, Reference, Registry, SigningKey};
use paygress_policy::{COMPONENT_BYTES, Interfaces, PolicyEngine};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `paygress policy push`.
#[derive(Args)]
pub struct PushArguments {
    /// The component's file.
    file: PathBuf,
    /// Where to: registry.example/name:tag.
    reference: String,
    /// Sign it with this key: PEM, PKCS #8, on the curve P-256, not encrypted.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Credentials: a file like docker's config.json.
    #[arg(long, env = "REGISTRY_AUTH_FILE")]
    auth: Option<PathBuf>,
}

/// Arguments of `paygress policy pull`.
#[derive(Args)]
pub struct PullArguments {
    /// Where from: registry.example/name:tag, or with @sha256:….
    reference: String,
    /// The file to write.
    file: PathBuf,
}

/// Arguments of `paygress policy inspect`.
#[derive(Args)]
pub struct InspectArguments {
    /// A component: a file, or oci:// and a reference.
    component: String,
    /// A public key that may have signed it; several may be given.
    #[arg(long)]
    key: Vec<PathBuf>,
    /// Credentials: a file like docker's config.json.
    #[arg(long, env = "REGISTRY_AUTH_FILE")]
    auth: Option<PathBuf>,
}

/// Arguments of `paygress policy sign`.
#[derive(Args)]
pub struct SignArguments {
    /// The component's file.
    file: PathBuf,
    /// The key: PEM, PKCS #8, on the curve P-256, not encrypted.
    #[arg(long)]
    key: PathBuf,
}

fn signing_key(path: &Path) -> Result<SigningKey> {
    let pem = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    SigningKey::from_pem(&pem).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    paygress_policy::read(path).map_err(|why| anyhow!("{why}"))
}

fn interfaces(component: &[u8]) -> Result<Interfaces> {
    Ok(Interfaces::of(&*PolicyEngine::start(None)?, component)?)
}

pub(super) async fn push(arguments: &PushArguments) -> Result<()> {
    let reference: Reference = arguments.reference.parse()?;
    let component = read(&arguments.file)?;
    let interfaces =
        interfaces(&component).with_context(|| arguments.file.display().to_string())?;
    let Some((slot, contract)) = interfaces.slot() else {
        bail!("{} exports nothing of paygress:policy; it is no policy", arguments.file.display());
    };
    let annotations = BTreeMap::from([
        ("dev.paygress.policy.slot".to_owned(), slot.to_string()),
        ("dev.paygress.policy.contract".to_owned(), contract.to_owned()),
    ]);
    // Before anything is sent: a key that is no good is better known now.
    let key = arguments.sign.as_deref().map(signing_key).transpose()?;
    let registry = Registry::new(arguments.auth.as_deref())?;
    let Interfaces { imports, exports } = &interfaces;
    let package = Package {
        component: &component,
        exports,
        imports,
        author: None,
        created: None,
        annotations: &annotations,
    };
    let digest = registry.push(&reference, &package).await?;
    if let Some(key) = &key {
        registry.sign(&reference, &digest, key).await?;
    }
    println!("{}", reference.pinned(digest));
    Ok(())
}

pub(super) async fn pull(supply: &ComponentFetcher, arguments: &PullArguments) -> Result<()> {
    let artifact = supply.pull(&arguments.reference).await?;
    std::fs::write(&arguments.file, &artifact.component)
        .with_context(|| format!("{} cannot be written", arguments.file.display()))?;
    println!("{} bytes, manifest {}", artifact.component.len(), artifact.manifest_digest);
    Ok(())
}

pub(super) fn sign(arguments: &SignArguments) -> Result<()> {
    let key = signing_key(&arguments.key)?;
    let signature = key.sign_blob(&read(&arguments.file)?);
    let path = paygress_policy::signature_path(&arguments.file);
    std::fs::write(&path, signature)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

pub(super) async fn inspect(arguments: &InspectArguments) -> Result<()> {
    let mut keys = Keys::default();
    for path in &arguments.key {
        keys.add_file(path).map_err(|why| anyhow!("{why}"))?;
    }
    let (component, signed) = match Component::of(&arguments.component)? {
        Component::Here(component, signature) => {
            let signed = match (&signature, keys.is_empty()) {
                (None, _) => "not signed: there is no file with its signature beside it".to_owned(),
                (Some(_), true) => "signed; name keys with --key to know by whom".to_owned(),
                (Some(signature), false) => verdict(keys.verify_blob(&component, signature)),
            };
            (component, signed)
        }
        Component::Registry(reference) => {
            let reference: Reference = reference.parse()?;
            let registry = Registry::new(arguments.auth.as_deref())?;
            let artifact = registry.pull(&reference, COMPONENT_BYTES).await?;
            let signatures = registry.signatures(&reference, &artifact.manifest_digest).await?;
            println!("manifest   {}", artifact.manifest_digest);
            let signed = match (signatures.len(), keys.is_empty()) {
                (0, _) => "not signed".to_owned(),
                (count, true) => format!("{count} signatures; name keys with --key to know whose"),
                (_, false) => verdict(keys.verify_image(&artifact.manifest_digest, &signatures)),
            };
            (artifact.component, signed)
        }
    };
    let interfaces = interfaces(&component)?;
    println!(
        "component  sha256:{}, {} bytes",
        paygress_oci::Digest::of(&component).hex(),
        component.len()
    );
    match interfaces.slot() {
        Some((slot, contract)) => println!("slot       {slot}, contract {contract}"),
        None => println!("slot       none: it exports nothing of paygress:policy"),
    }
    println!("imports    {}", interfaces.imports.join(", "));
    println!("exports    {}", interfaces.exports.join(", "));
    println!("signature  {signed}");
    Ok(())
}

fn verdict(verdict: Result<&str, paygress_oci::Unverified>) -> String {
    verdict.map_or_else(|why| format!("not good: {why}"), |key| format!("good, by {key}"))
}
