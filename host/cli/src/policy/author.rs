//! New projects of policies, and what turns their core modules into components.
#![allow(clippy::print_stdout)]

use super::slot;
use anyhow::{Context, Result};
use clap::Args;
use paygress_core::backend::policy::Slot;
use paygress_policy_tools::Language;
use std::path::PathBuf;

/// Arguments of `paygress policy new`.
#[derive(Args)]
pub struct NewArguments {
    /// The language: rust, js, python, go or c.
    #[arg(long)]
    lang: Language,
    /// The slot: images, pricing, duration or pod-template.
    #[arg(value_parser = slot)]
    slot: Slot,
    /// The folder; it must be empty, or not there yet. Its name is the policy's.
    directory: PathBuf,
}

/// Arguments of `paygress policy bindings`.
#[derive(Args)]
pub struct BindingsArguments {
    /// The language: c or go; the tools of the others make their own.
    #[arg(long)]
    lang: Language,
    /// The contract: a folder of WIT files.
    #[arg(long)]
    wit: PathBuf,
    /// The world: images-policy, pricing-policy, duration-policy or pod-template-policy.
    #[arg(long)]
    world: String,
    /// Where to write them.
    directory: PathBuf,
}

/// Arguments of `paygress policy component`.
#[derive(Args)]
pub struct ComponentArguments {
    /// The contract, for a module that does not carry its types itself (Go).
    #[arg(long, requires = "world")]
    wit: Option<PathBuf>,
    /// The world of it.
    #[arg(long, requires = "wit")]
    world: Option<String>,
    /// The core module.
    core: PathBuf,
    /// The component to write.
    component: PathBuf,
}

pub(super) fn new(arguments: &NewArguments) -> Result<()> {
    let NewArguments { lang, slot, directory } = arguments;
    let folder = std::path::absolute(directory)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paygress_policy_tools::new_project(directory, *lang, *slot, &name)?;
    println!("{} is there; its README.md says how to go on", directory.display());
    Ok(())
}

pub(super) fn bindings(arguments: &BindingsArguments) -> Result<()> {
    let BindingsArguments { lang, wit, world, directory } = arguments;
    paygress_policy_tools::bindings(*lang, wit, world, directory)?;
    Ok(())
}

pub(super) fn component(arguments: &ComponentArguments) -> Result<()> {
    let ComponentArguments { wit, world, core, component } = arguments;
    let module =
        std::fs::read(core).with_context(|| format!("{} cannot be read", core.display()))?;
    let embed = wit.as_deref().zip(world.as_deref());
    let bytes = paygress_policy_tools::component(&module, embed)
        .with_context(|| core.display().to_string())?;
    paygress_policy_tools::write_whole(component, &bytes)?;
    Ok(())
}
