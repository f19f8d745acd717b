//! `paygress policy`: for who operates policies, and for who writes them.
//!
//! - `author.rs`: new projects, and components of what they build.
//! - `admin.rs`: exchange them in a running service, go back, have candidates decide beside them.
//! - `replay.rs`: what would a candidate have said of the orders in the ledger?
//! - `registry.rs`: to registries and back, signed.
//! - `check.rs`: one component by itself: check it, ask it, measure it. `suite.rs`: cases that it
//!   must meet.

mod admin;
mod author;
mod check;
mod registry;
mod replay;
mod suite;

use crate::app::{guard, supply};
use crate::config::{Config, Reader};
use crate::serve::{configured, configured_in_part};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use paygress_core::backend::policy::Slot;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// What to do with policies.
#[derive(Subcommand)]
pub enum PolicyAction {
    /// Put components in force in the running service, all or none; orders under way end with the
    /// old ones.
    Swap(Candidates),
    /// Go back to what was in force before, or to a publication of `history`.
    Rollback {
        /// Its number.
        number: Option<u64>,
    },
    /// What has been in force, the newest last.
    History,
    /// Have components decide beside those in force, on the live orders; nothing that they say is
    /// used.
    Shadow {
        /// What to do with it.
        #[command(subcommand)]
        action: ShadowAction,
    },
    /// Put the components of the shadow in force.
    Promote,
    /// What would components have said of the orders in the ledger? The service may be running.
    Replay(replay::Arguments),
    /// Put a component into a registry, signed if a key is given.
    Push(ship::PushArguments),
    /// Fetch a component from a registry, its signature judged as the configuration wants it.
    Pull(ship::PullArguments),
    /// What is it: its digest, slot and contract, and who signed it?
    Inspect(ship::InspectArguments),
    /// Sign a component's file, as `cosign sign-blob` does: the signature is written beside it.
    Sign(ship::SignArguments),
    /// Begin a project for a policy, in a language; it builds at once.
    New(author::NewArguments),
    /// Write the bindings of the contract, for C or Go. Called by a project's build.sh.
    Bindings(author::BindingsArguments),
    /// Make a component of a core module. Called by a project's build.sh.
    Component(author::ComponentArguments),
    /// Does a component keep to the contract, take its settings, and stand up to strange orders?
    Check(trial::Component),
    /// Which settings does a component take? Prints its JSON schema.
    Schema(trial::Component),
    /// What does a component say of an order, and what was it shown?
    Eval(trial::EvalArguments),
    /// Does a component meet the cases of a suite?
    Test(suite::Arguments),
    /// What does a call cost: time, instructions, memory?
    Bench(trial::BenchArguments),
    /// How the policies in force do, as a table that is always new.
    Top {
        /// Print it once, and end.
        #[arg(long)]
        once: bool,
    },
}

/// What to do with a shadow.
#[derive(Subcommand)]
pub enum ShadowAction {
    /// Begin, instead of one that runs.
    Start(Candidates),
    /// How it compares so far.
    Report {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// End it, and tell how it compared.
    Stop,
}

/// Components for slots.
#[derive(Args)]
pub struct Candidates {
    /// A slot (images, pricing, duration, pod-template) and the component: a file, or oci:// and a
    /// reference. Several slots are exchanged together. The signature of a file is the one beside
    /// it, FILE.sig.
    #[arg(required = true, num_args = 2.., value_names = ["SLOT", "REF"])]
    pairs: Vec<String>,
    /// The settings of a slot, a file with a JSON object; left out: those in force.
    #[arg(long, value_name = "SLOT=FILE")]
    settings: Vec<String>,
}

/// A component, and the settings that were given with it.
struct Candidate {
    component: Component,
    settings: Option<Map<String, Value>>,
}

/// Where a component is.
enum Component {
    /// Here, with its signature, if it has one.
    Here(Vec<u8>, Option<String>),
    /// In a registry.
    Registry(String),
}

impl Component {
    fn of(reference: &str) -> Result<Self> {
        if reference.starts_with("oci://") {
            return Ok(Self::Registry(reference.to_owned()));
        }
        let read = || {
            Ok::<_, String>((
                paygress_policy::read(Path::new(reference))?,
                paygress_policy::signature(Path::new(reference))?,
            ))
        };
        read()
            .map(|(component, signature)| Self::Here(component, signature))
            .map_err(|why| anyhow!("{why}"))
    }

    /// Its bytes, judged as the configuration wants it.
    async fn obtained(self, config: &Config) -> Result<Vec<u8>> {
        let supply = supply(config.trust.clone(), config.registry_auth.as_deref())?;
        Ok(match self {
            Self::Here(component, signature) => {
                supply.judge("the component", &component, signature.as_deref())?;
                component
            }
            Self::Registry(reference) => supply.pull(&reference).await?.component,
        })
    }
}

fn slot(name: &str) -> Result<Slot> {
    Slot::named(name).ok_or_else(|| {
        anyhow!("there is no slot {name}; the slots are images, pricing, duration and pod-template")
    })
}

impl Candidates {
    fn read(&self) -> Result<BTreeMap<Slot, Candidate>> {
        let mut candidates = BTreeMap::new();
        for pair in self.pairs.chunks(2) {
            let [name, reference] = pair else {
                bail!("name a slot and a component, and the next slot and its: pricing new.wasm")
            };
            if candidates
                .insert(
                    slot(name)?,
                    Candidate { component: Component::of(reference)?, settings: None },
                )
                .is_some()
            {
                bail!("the slot {name} is named twice");
            }
        }
        for given in &self.settings {
            let (name, file) = given.split_once('=').context("settings are given as SLOT=FILE")?;
            let candidate = candidates
                .get_mut(&slot(name)?)
                .with_context(|| format!("settings for {name}, but no component for it"))?;
            candidate.settings = Some(object(Path::new(file))?);
        }
        Ok(candidates)
    }
}

/// A JSON object in a file.
fn object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    match serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))? {
        Value::Object(object) => Ok(object),
        _ => bail!("{} is not a JSON object", path.display()),
    }
}

/// Runs `paygress policy`.
///
/// # Errors
/// What was not done, and why.
pub async fn policy(config: Option<&Path>, action: PolicyAction) -> Result<ExitCode> {
    let socket = || configured_in_part(config, Reader::admin_socket);
    let guard = || configured_in_part(config, Reader::allowed).map(guard);
    match action {
        PolicyAction::Swap(candidates) => operate::swap(&socket()?, &candidates).await?,
        PolicyAction::Rollback { number } => operate::rollback(&socket()?, number).await?,
        PolicyAction::History => operate::history(&socket()?).await?,
        PolicyAction::Shadow { action } => operate::shadow(&socket()?, action).await?,
        PolicyAction::Promote => operate::promote(&socket()?).await?,
        PolicyAction::Replay(arguments) => replay::replay(&configured(config)?, &arguments).await?,
        PolicyAction::Push(arguments) => ship::push(&arguments).await?,
        PolicyAction::Pull(arguments) => {
            let (trust, credentials) =
                configured_in_part(config, |reader| (reader.trust(), reader.registry_auth()))?;
            ship::pull(&supply(trust, credentials.as_deref())?, &arguments).await?;
        }
        PolicyAction::Inspect(arguments) => ship::inspect(&arguments).await?,
        PolicyAction::Sign(arguments) => ship::sign(&arguments)?,
        PolicyAction::New(arguments) => author::new(&arguments)?,
        PolicyAction::Bindings(arguments) => author::bindings(&arguments)?,
        PolicyAction::Component(arguments) => author::component(&arguments)?,
        PolicyAction::Check(component) => return trial::check(&component, guard()?),
        PolicyAction::Schema(component) => trial::schema(&component)?,
        PolicyAction::Eval(arguments) => return trial::eval(&arguments, guard()?),
        PolicyAction::Test(arguments) => return suite::test(&arguments, guard()?),
        PolicyAction::Bench(arguments) => return trial::bench(&arguments),
        PolicyAction::Top { once } => operate::top(&socket()?, once).await?,
    }
    Ok(ExitCode::SUCCESS)
}
