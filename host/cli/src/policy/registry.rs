//! Components in registries, and their signatures.

use super::candidates::Component;
use crate::compiler::compiler;
use crate::output::print_line;
use anyhow::{Context, Result, bail};
use clap::Args;
use paygress_oci::{
    ComponentFetcher, Digest, Keys, Package, Reference, Registry, SigningKey, Unverified,
};
use paygress_policy::{
    COMPONENT_BYTES, Interfaces, PolicyEngine, SlotInterface, read_component, signature_path,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `paygress policy push`.
#[derive(Args)]
pub struct PushArguments {
    /// The component's file.
    file: PathBuf,
    /// The reference to push to: registry.example/name:tag.
    reference: String,
    /// Sign it with this key: PEM, PKCS #8, on the curve P-256, not encrypted.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// The file with credentials, as docker's config.json or podman's auth.json.
    #[arg(long, env = "REGISTRY_AUTH_FILE")]
    auth: Option<PathBuf>,
}

/// Arguments of `paygress policy pull`.
#[derive(Args)]
pub struct PullArguments {
    /// The reference to pull from: registry.example/name:tag, or with @sha256:….
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
    /// The file with credentials, as docker's config.json or podman's auth.json.
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

/// Compiles the component, which takes a while.
async fn interfaces(component: Vec<u8>) -> Result<Interfaces> {
    let read = move || {
        let engine = PolicyEngine::start(None)?.with_compiler(compiler());
        anyhow::Ok(Interfaces::of(&engine, &component)?)
    };
    tokio::task::spawn_blocking(read).await?
}

pub(super) async fn push(arguments: &PushArguments) -> Result<()> {
    let reference: Reference = arguments.reference.parse()?;
    let component = read_component(&arguments.file)?;
    let interfaces = interfaces(component.clone())
        .await
        .with_context(|| arguments.file.display().to_string())?;
    let Some(SlotInterface { slot, contract }) = interfaces.slot() else {
        bail!(
            "{} is not a policy: it exports nothing of paygress:policy",
            arguments.file.display()
        );
    };
    let annotations = BTreeMap::from([
        ("dev.paygress.policy.slot".to_owned(), slot.to_string()),
        ("dev.paygress.policy.contract".to_owned(), contract.to_owned()),
    ]);
    // A key that cannot be used is noticed before anything is sent.
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
    print_line(reference.pinned(digest));
    Ok(())
}

pub(super) async fn pull(fetcher: &ComponentFetcher, arguments: &PullArguments) -> Result<()> {
    let artifact = fetcher.pull(&arguments.reference).await?;
    std::fs::write(&arguments.file, &artifact.component)
        .with_context(|| format!("{} cannot be written", arguments.file.display()))?;
    print_line(format_args!(
        "{} bytes, manifest {}",
        artifact.component.len(),
        artifact.manifest_digest
    ));
    Ok(())
}

pub(super) fn sign(arguments: &SignArguments) -> Result<()> {
    let key = signing_key(&arguments.key)?;
    let signature = key.sign_blob(&read_component(&arguments.file)?);
    let path = signature_path(&arguments.file);
    std::fs::write(&path, signature)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    print_line(path.display());
    Ok(())
}

pub(super) async fn inspect(arguments: &InspectArguments) -> Result<()> {
    let mut keys = Keys::default();
    for path in &arguments.key {
        keys.add_file(path)?;
    }
    let (component, signature) = match Component::read(&arguments.component)? {
        Component::Local { bytes, signature } => {
            let status = file_signature(&keys, &bytes, signature.as_deref());
            (bytes, status)
        }
        Component::Registry(reference) => {
            let reference: Reference = reference.parse()?;
            let registry = Registry::new(arguments.auth.as_deref())?;
            inspect_artifact(&registry, &reference, &keys).await?
        }
    };
    let (digest, length) = (Digest::of(&component), component.len());
    let interfaces = interfaces(component).await?;
    print_line(format_args!("component  {digest}, {length} bytes"));
    match interfaces.slot() {
        Some(SlotInterface { slot, contract }) => {
            print_line(format_args!("slot       {slot}, contract {contract}"));
        }
        None => print_line("slot       none: it exports nothing of paygress:policy"),
    }
    print_line(format_args!("imports    {}", interfaces.imports.join(", ")));
    print_line(format_args!("exports    {}", interfaces.exports.join(", ")));
    print_line(format_args!("signature  {signature}"));
    Ok(())
}

/// The component of an artifact, and what is known of its signatures.
async fn inspect_artifact(
    registry: &Registry,
    reference: &Reference,
    keys: &Keys,
) -> Result<(Vec<u8>, String)> {
    let artifact = registry.pull(reference, COMPONENT_BYTES).await?;
    let signatures = registry.signatures(reference, &artifact.manifest_digest).await?;
    print_line(format_args!("manifest   {}", artifact.manifest_digest));
    let status = match (signatures.len(), keys.is_empty()) {
        (0, _) => "not signed".to_owned(),
        (count, true) => format!("{count} signatures; name keys with --key to verify them"),
        (_, false) => describe(keys.verify_image(&artifact.manifest_digest, &signatures)),
    };
    Ok((artifact.component, status))
}

fn file_signature(keys: &Keys, component: &[u8], signature: Option<&str>) -> String {
    match (signature, keys.is_empty()) {
        (None, _) => "not signed: there is no file with a signature beside it".to_owned(),
        (Some(_), true) => "signed; name keys with --key to verify it".to_owned(),
        (Some(signature), false) => describe(keys.verify_blob(component, signature)),
    }
}

fn describe(verified: Result<&str, Unverified>) -> String {
    verified.map_or_else(|error| format!("not good: {error}"), |key| format!("good, by {key}"))
}
