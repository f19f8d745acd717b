//! `paygress policy`: arguments and calls. For operators and for authors of policies.
//!
//! - `admin.rs`: replaces policies in a running service, over its admin socket. `tables.rs` prints
//!   statistics and comparisons.
//! - `replay.rs`: what would a candidate have decided on the orders in the ledger?
//! - `registry.rs`: registries and signatures.
//! - `candidates.rs`: slots and components on the command line.
//! - `util.rs`: what the commands share.
//! - `author.rs`: the authors' commands of `paygress-policy-tools`.

mod admin;
mod author;
mod candidates;
mod registry;
mod replay;
mod tables;
mod util;

use crate::app::{fetcher, guard};
use crate::config::Reader;
use crate::serve::{configured, configured_in_part};
use admin::ShadowAction;
use anyhow::Result;
use candidates::Candidates;
use clap::Subcommand;
use std::path::Path;
use std::process::ExitCode;
use util::blocking;

#[derive(Subcommand)]
pub enum PolicyAction {
    /// Activate components in the running service, all or none. Orders in progress finish with the
    /// old ones.
    Swap(Candidates),
    /// Go back to the previous revision, or to one of `history`.
    Rollback {
        /// Its number.
        number: Option<u64>,
    },
    /// List the revisions, the newest last.
    History,
    /// Run components beside the active ones, on live orders. Their decisions are not used.
    Shadow {
        #[command(subcommand)]
        action: ShadowAction,
    },
    /// Activate the components of the shadow.
    Promote,
    /// Compare what components would have decided on the orders in the ledger. The service may be
    /// running.
    Replay(replay::Arguments),
    /// Push a component to a registry, signed if a key is given.
    Push(registry::PushArguments),
    /// Pull a component from a registry, and verify its signature as configured.
    Pull(registry::PullArguments),
    /// Show a component's digest, slot, contract and signature.
    Inspect(registry::InspectArguments),
    /// Sign a component's file, like `cosign sign-blob`. Writes the signature beside it.
    Sign(registry::SignArguments),
    /// Create a project for a policy that builds at once.
    New(author::NewArguments),
    /// Generate bindings of the contract for C or Go. Called by a project's build.sh.
    Bindings(author::BindingsArguments),
    /// Make a component of a core module. Called by a project's build.sh.
    Component(author::ComponentArguments),
    /// Check a component: its contract, its settings, and unusual orders.
    Check(author::ComponentFile),
    /// Print the JSON Schema of a component's settings.
    Schema(author::ComponentFile),
    /// Call a component with an order. Shows the input, the result and the cost.
    Eval(author::EvalArguments),
    /// Run a suite of test cases.
    Test(author::TestArguments),
    /// Measure the cost of a call: time, instructions, memory.
    Bench(author::BenchArguments),
    /// Show statistics of the active policies, refreshed every second.
    Top {
        /// Print them once and exit.
        #[arg(long)]
        once: bool,
    },
}

/// Whether a command of `paygress policy` reads the config file.
#[must_use]
pub fn reads_config(command: &clap::Command) -> bool {
    !matches!(
        command.get_name(),
        "push" | "inspect" | "sign" | "new" | "bindings" | "component" | "schema" | "bench"
    )
}

/// Runs `paygress policy`.
///
/// # Errors
/// Why the command failed.
pub async fn policy(config: Option<&Path>, action: PolicyAction) -> Result<ExitCode> {
    let socket = || configured_in_part(config, Reader::admin_socket);
    let guard = || configured_in_part(config, Reader::allowed).map(guard);
    match action {
        PolicyAction::Swap(candidates) => admin::swap(&socket()?, candidates).await?,
        PolicyAction::Rollback { number } => admin::rollback(&socket()?, number).await?,
        PolicyAction::History => admin::history(&socket()?).await?,
        PolicyAction::Shadow { action } => admin::shadow(&socket()?, action).await?,
        PolicyAction::Promote => admin::promote(&socket()?).await?,
        PolicyAction::Replay(arguments) => replay::replay(&configured(config)?, arguments).await?,
        PolicyAction::Push(arguments) => registry::push(&arguments).await?,
        PolicyAction::Pull(arguments) => {
            let (verification, registries) =
                configured_in_part(config, |reader| (reader.trust(), reader.registries()))?;
            registry::pull(&fetcher(verification, &registries).await?, &arguments).await?;
        }
        PolicyAction::Inspect(arguments) => registry::inspect(&arguments).await?,
        PolicyAction::Sign(arguments) => registry::sign(&arguments)?,
        PolicyAction::New(arguments) => author::new(&arguments)?,
        PolicyAction::Bindings(arguments) => author::bindings(&arguments)?,
        PolicyAction::Component(arguments) => author::component(&arguments)?,
        PolicyAction::Check(file) => {
            let guard = guard()?;
            return blocking(move || author::check(file, guard)).await;
        }
        PolicyAction::Schema(file) => blocking(move || author::schema(file)).await?,
        PolicyAction::Eval(arguments) => {
            let guard = guard()?;
            return blocking(move || author::eval(arguments, guard)).await;
        }
        PolicyAction::Test(arguments) => {
            let guard = guard()?;
            return blocking(move || author::test(&arguments, guard)).await;
        }
        PolicyAction::Bench(arguments) => {
            return blocking(move || author::bench(arguments)).await;
        }
        PolicyAction::Top { once } => {
            let mode = if once { admin::TopMode::Once } else { admin::TopMode::Refresh };
            admin::top(&socket()?, mode).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
