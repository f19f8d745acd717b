//! The project's own commands: `cargo xtask --help`.
#![allow(clippy::print_stdout)]

mod actionlint;
mod background;
mod bench;
mod beside;
mod checks;
mod cluster;
mod compiler;
mod counts;
mod demo;
mod faults;
mod fuzz;
mod generate;
mod go_program;
mod images;
mod plugins;
mod promtool;
mod publish_wit;
mod python;
#[cfg(test)]
mod release;
mod run;
mod sbom;
mod space;
mod test;
mod web;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use compiler::Compiler;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The project's own commands",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and run the embedded demo: no cluster, no network.
    Demo {
        /// Arguments of `paygress demo`, after `--`: `--once` ends by itself.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run the checks and tests, those on the real cluster included; the longest of them with
    /// `--whole` only.
    Test {
        /// Leave out what needs root: the tests on the real cluster. Says so at the end.
        #[arg(long)]
        without_cluster: bool,
        /// Run the tests in full: those on the real cluster take about 40 minutes instead of 25.
        #[arg(long, conflicts_with = "without_cluster")]
        whole: bool,
    },
    /// Build the policies into target/plugins.
    Plugins,
    /// Write each version of the contract into target/wit as a WIT package, and publish it for
    /// `wkg`.
    PublishWit {
        /// Where: a registry, and a prefix if it needs one. Versions are the tags of
        /// `/paygress/policy` below it. Left out: nothing is published.
        reference: Option<String>,
        /// The file with credentials, as docker's config.json or podman's auth.json.
        #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
        auth: Option<PathBuf>,
    },
    /// Write the files that are derived from Rust types.
    Generate {
        /// Write nothing; fail if a file is out of date.
        #[arg(long)]
        check: bool,
    },
    /// Build images into target/images, archives for `ctr images import` or `docker load`. Needs
    /// root.
    #[command(alias = "ssh-image")]
    Images {
        /// Which ones.
        #[arg(value_enum, default_values_t = [images::Image::Ssh])]
        images: Vec<images::Image>,
        /// For which nodes.
        #[arg(long, value_enum, default_value_t = images::Architecture::Amd64)]
        arch: images::Architecture,
        /// Put the files of one image into a new directory instead, as the Dockerfile does.
        #[arg(long, value_name = "DIRECTORY")]
        rootfs: Option<PathBuf>,
        /// Put this program into the service's image instead of building it, as the tests do.
        #[arg(long, value_name = "FILE", conflicts_with = "rootfs")]
        program: Option<PathBuf>,
    },
    /// List what is built into an image, as CycloneDX: into target/paygress.cdx.json, or as named.
    Sbom {
        #[arg(value_enum, default_value_t = sbom::Product::Service)]
        product: sbom::Product,
        /// For which nodes.
        #[arg(long, value_enum, default_value_t = images::Architecture::Amd64)]
        arch: images::Architecture,
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Manage the testbed: a one-node Kubernetes on this machine. Needs root.
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Run orders with injected faults, chosen by a seed, and account for every sat afterwards.
    Faults {
        /// How many runs at cdk's mint.
        #[arg(long, default_value_t = 1_000)]
        runs: u64,
        /// How many runs at a Nutshell mint.
        #[arg(long, default_value_t = 60)]
        nutshell: u64,
        /// The first seed; the same seed is the same run.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fuzz what reads untrusted bytes: tokens, messages, rendered templates, components.
    Fuzz {
        /// How long each, in seconds.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// One of: token, message, template, component. Left out: all.
        target: Option<String>,
    },
    /// Run the benchmarks and compare them with the bare libraries.
    Bench {
        /// Compare the policy host with other plugin systems instead, which are compiled for it.
        #[arg(long)]
        beside: bool,
        /// Count the instructions of policy calls and the writes of an order instead, and compare them
        /// with those stored. Needs valgrind and bubblewrap.
        #[arg(long, conflicts_with = "beside")]
        counts: bool,
        /// Measure a pricing call in each language instead, of new projects. Needs Node, Python, Go,
        /// and clang with lld.
        #[arg(long, conflicts_with_all = ["beside", "counts"])]
        languages: bool,
        /// Store the counts, to be compared with from now on.
        #[arg(long, requires = "counts")]
        bless: bool,
    },
    /// Check the source: vocabulary, layers, licenses, cycles between modules, sizes, types of
    /// errors, links, the Dockerfile, the workflows, subjects of commits.
    Check(CheckArguments),
    /// List the retired terms that are left, as `file:line: term`.
    Vocabulary {
        /// Only below this path.
        path: Option<String>,
    },
}

#[derive(Args)]
struct CheckArguments {
    /// Check the workflows with actionlint too, which is compiled by Go.
    #[arg(long)]
    workflows: bool,
    /// Check the alerts and the dashboard with promtool too, which is compiled by Go.
    #[arg(long)]
    alerts: bool,
    /// Check the commands in the documents too, against the built `paygress`.
    #[arg(long)]
    commands: bool,
}

fn check(arguments: &CheckArguments) -> Result<()> {
    checks::source()?;
    if arguments.workflows {
        actionlint::check()?;
    }
    if arguments.alerts {
        promtool::check()?;
    }
    if !arguments.commands {
        return Ok(());
    }
    checks::documented_commands(&run::target().join("debug/paygress"), &Cli::command())
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Demo { arguments } => demo::demo(&arguments),
        Command::Test { without_cluster, whole } => {
            let extent = if whole { cluster::Extent::Whole } else { cluster::Extent::Short };
            test::test((!without_cluster).then_some(extent), &Cli::command())
        }
        Command::Plugins => plugins::build(),
        Command::PublishWit { reference, auth } => {
            publish_wit::publish(reference.as_deref(), auth.as_deref())
        }
        Command::Generate { check } => {
            let mode = if check { generate::Mode::Check } else { generate::Mode::Write };
            generate::generate(mode, Compiler::Rustc)
        }
        Command::Images { images, arch, rootfs, program } => match (rootfs, program) {
            (Some(rootfs), _) => images::files(&images, arch, &rootfs),
            (None, Some(program)) => images::build_of(&images, arch, &program),
            (None, None) => images.into_iter().try_for_each(|image| images::build(image, arch)),
        },
        Command::Sbom { product, arch, output } => {
            let output = output.unwrap_or_else(|| run::target().join("paygress.cdx.json"));
            sbom::write(product, arch.triple(), &output)?;
            println!("   written: {}", output.display());
            Ok(())
        }
        Command::Cluster { action } => cluster::cluster(&action),
        Command::Faults { runs, nutshell, seed } => {
            faults::faults(Compiler::Rustc, seed, runs, nutshell)
        }
        Command::Fuzz { seconds, target } => fuzz::fuzz(seconds, target.as_deref()),
        Command::Bench { beside: true, .. } => beside::bench(),
        Command::Bench { counts: true, bless, .. } => {
            counts::count(if bless { counts::Baseline::Replace } else { counts::Baseline::Compare })
        }
        Command::Bench { languages: true, .. } => bench::languages(),
        Command::Bench { .. } => bench::bench(),
        Command::Check(arguments) => check(&arguments),
        Command::Vocabulary { path } => checks::vocabulary::print(path.as_deref()),
    }
}
