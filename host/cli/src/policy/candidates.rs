//! Slots and components on the command line.

use super::util::slot;
use crate::app::fetcher;
use crate::config::Config;
use anyhow::{Context, Result, bail};
use clap::Args;
use paygress_core::backend::policy::Slot;
use paygress_policy::{read_component, read_signature};
use paygress_policy_tools::read_object;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Args)]
pub struct Candidates {
    /// A slot (images, pricing, duration, pod-template) and a component: a file, or oci:// and a
    /// reference. Several slots are replaced together. A file's signature is read from FILE.sig.
    #[arg(required = true, num_args = 2.., value_names = ["SLOT", "REF"])]
    pairs: Vec<String>,
    /// The settings of a slot, a file with a JSON object. Default: those of the active component.
    #[arg(long, value_name = "SLOT=FILE")]
    settings: Vec<String>,
}

/// A component, and the settings that were given for it.
pub(super) struct Candidate {
    pub(super) component: Component,
    pub(super) settings: Option<Map<String, Value>>,
}

pub(super) enum Component {
    /// A file's content, with its signature, if it has one.
    Local { bytes: Vec<u8>, signature: Option<String> },
    /// A reference into a registry.
    Registry(String),
}

impl Component {
    pub(super) fn read(reference: &str) -> Result<Self> {
        if reference.starts_with("oci://") {
            return Ok(Self::Registry(reference.to_owned()));
        }
        let path = Path::new(reference);
        Ok(Self::Local { bytes: read_component(path)?, signature: read_signature(path)? })
    }

    /// Its bytes, verified as configured.
    pub(super) async fn fetch(self, config: &Config) -> Result<Vec<u8>> {
        let fetcher = fetcher(config.verification.clone(), &config.registries).await?;
        Ok(match self {
            Self::Local { bytes, signature } => {
                fetcher.verify("the component", &bytes, signature.as_deref())?;
                bytes
            }
            Self::Registry(reference) => fetcher.pull(&reference).await?.component,
        })
    }
}

impl Candidates {
    /// Reads the files. Blocks.
    pub(super) fn read(&self) -> Result<BTreeMap<Slot, Candidate>> {
        let mut candidates = BTreeMap::new();
        for pair in self.pairs.chunks(2) {
            let [name, reference] = pair else {
                bail!("give a slot and a component for each slot, such as: pricing new.wasm")
            };
            let candidate = Candidate { component: Component::read(reference)?, settings: None };
            if candidates.insert(slot(name)?, candidate).is_some() {
                bail!("the slot {name} is named twice");
            }
        }
        for argument in &self.settings {
            let (name, file) = argument.split_once('=').context("give settings as SLOT=FILE")?;
            let candidate = candidates.get_mut(&slot(name)?).with_context(|| {
                format!("there are settings for {name}, but no component; name its file too")
            })?;
            candidate.settings = Some(read_object(Path::new(file))?);
        }
        Ok(candidates)
    }
}
