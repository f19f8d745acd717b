//! The authors' commands: arguments, and calls of `paygress-policy-tools`.

use super::util::slot;
use crate::compiler::compiler;
use crate::output::{print, print_line};
use anyhow::{Context, Result};
use clap::Args;
use paygress_core::backend::policy::Slot;
use paygress_policy::TemplateGuard;
use paygress_policy_tools::{Cost, Language, PolicyFile, World};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct NewArguments {
    /// The language: rust, js, python, go or c.
    #[arg(long)]
    lang: Language,
    /// The slot: images, pricing, duration or pod-template.
    #[arg(value_parser = slot)]
    slot: Slot,
    /// An empty or new directory. Its name becomes the policy's.
    directory: PathBuf,
}

#[derive(Args)]
pub struct BindingsArguments {
    /// The language: c or go; the tools of the others generate their own.
    #[arg(long)]
    lang: Language,
    /// The contract: a directory of WIT files.
    #[arg(long)]
    wit: PathBuf,
    /// The world: images-policy, pricing-policy, duration-policy or pod-template-policy.
    #[arg(long)]
    world: String,
    /// The directory to write to.
    directory: PathBuf,
}

#[derive(Args)]
pub struct ComponentArguments {
    /// The contract, for a module that does not embed its types itself (Go).
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

#[derive(Args)]
pub struct ComponentFile {
    /// The slot: images, pricing, duration or pod-template.
    #[arg(value_parser = slot)]
    slot: Slot,
    /// The component's file.
    file: PathBuf,
    /// Its settings, a file with a JSON object. Default: {}.
    #[arg(long)]
    settings: Option<PathBuf>,
}

#[derive(Args)]
pub struct EvalArguments {
    #[command(flatten)]
    component: ComponentFile,
    /// A file with a JSON object: how the order differs from an ordinary one. `{}` shows that one.
    order: PathBuf,
}

#[derive(Args)]
pub struct TestArguments {
    /// The suite, YAML or JSON.
    suite: PathBuf,
    /// Test this component in place of the suite's.
    #[arg(long)]
    component: Option<PathBuf>,
    /// Also write the results to this file, as JUnit XML.
    #[arg(long)]
    junit: Option<PathBuf>,
}

#[derive(Args)]
pub struct BenchArguments {
    #[command(flatten)]
    component: ComponentFile,
    /// An order, as for `eval`. Default: an ordinary one.
    #[arg(long)]
    order: Option<PathBuf>,
    /// The number of calls.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Save the result to this file.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Compare with a saved result. Fails if it is worse by more than --tolerance.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// In percent, for instructions and memory, which are the same on every machine. Times are
    /// shown, and not judged.
    #[arg(long, default_value_t = 5)]
    tolerance: u64,
}

impl From<ComponentFile> for PolicyFile {
    fn from(ComponentFile { slot, file, settings }: ComponentFile) -> Self {
        Self { slot, component: file, settings }
    }
}

pub(super) fn new(arguments: &NewArguments) -> Result<()> {
    let NewArguments { lang, slot, directory } = arguments;
    let path = std::path::absolute(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paygress_policy_tools::new_project(directory, *lang, *slot, &name)?;
    print_line(format_args!(
        "created {}; see its README.md for the next steps",
        directory.display()
    ));
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
    let world = wit.as_deref().zip(world.as_deref()).map(|(wit, name)| World { wit, name });
    let bytes = paygress_policy_tools::component(&module, world)
        .with_context(|| core.display().to_string())?;
    paygress_policy_tools::write_atomically(component, &bytes)?;
    Ok(())
}

pub(super) fn check(file: ComponentFile, guard: TemplateGuard) -> Result<ExitCode> {
    let report = paygress_policy_tools::check(&file.into(), guard, &compiler())?;
    print(&report);
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn schema(file: ComponentFile) -> Result<()> {
    print_line(PolicyFile::from(file).schema(&compiler())?);
    Ok(())
}

pub(super) fn eval(arguments: EvalArguments, guard: TemplateGuard) -> Result<ExitCode> {
    let EvalArguments { component, order } = arguments;
    let evaluation = paygress_policy_tools::eval(&component.into(), &order, guard, &compiler())?;
    print(&evaluation);
    Ok(if evaluation.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(super) fn test(arguments: &TestArguments, guard: TemplateGuard) -> Result<ExitCode> {
    let TestArguments { suite, component, junit } = arguments;
    let report = paygress_policy_tools::run_suite(suite, component.as_deref(), guard, &compiler())?;
    print(&report);
    if let Some(path) = junit {
        let xml = report.junit().context("the results cannot be written as XML")?;
        std::fs::write(path, xml)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn bench(arguments: BenchArguments) -> Result<ExitCode> {
    let BenchArguments { component, order, calls, save, baseline, tolerance } = arguments;
    let cost = Cost::measure(&component.into(), order.as_deref(), calls, &compiler())?;
    let baseline = baseline.as_deref().map(Cost::read).transpose()?;
    let report = cost.compare(baseline.as_ref(), tolerance);
    print(&report);
    if let Some(path) = save {
        std::fs::write(&path, serde_json::to_string_pretty(&cost)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(if report.is_worse() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
