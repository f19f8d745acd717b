//! The components and guests that are measured.

use anyhow::{Context, Result};
use paygress_core::backend::policy::Slot;
use paygress_policy::{Source, Sources, read_component};
use std::path::{Path, PathBuf};

/// What a policy charges: the one that is active at first, and the one that it is exchanged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prices {
    Usual,
    Double,
}

impl Prices {
    /// Of a minute in the default tier.
    pub(crate) fn msat(self) -> u64 {
        match self {
            Self::Usual => 1_000,
            Self::Double => 2_000,
        }
    }

    /// The settings of the pricing policy.
    pub(crate) fn settings(self) -> &'static str {
        match self {
            Self::Usual => "{}",
            Self::Double => r#"{"sats_per_hour": 120}"#,
        }
    }
}

/// cargo's target directory.
#[derive(Clone)]
pub(crate) struct Files {
    target: PathBuf,
}

impl Files {
    pub(crate) fn new(target: PathBuf) -> Self {
        Self { target }
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The module of a guest, as `cargo xtask bench --beside` names it.
    pub(crate) fn guest(&self, system: &str, prices: Prices) -> PathBuf {
        let prices = match prices {
            Prices::Usual => "usual",
            Prices::Double => "double",
        };
        self.target.join(format!("beside-guests/{system}-{prices}.wasm"))
    }

    pub(crate) fn read_guest(&self, system: &str, prices: Prices) -> Result<Vec<u8>> {
        let path = self.guest(system, prices);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// The default policies.
    pub(crate) fn policies(&self) -> Result<Sources> {
        let mut sources = Sources::new();
        for slot in Slot::ALL {
            let path = self.target.join(format!("plugins/{slot}.wasm"));
            sources.insert(slot, Source::plain(read_component(&path)?));
        }
        Ok(sources)
    }

    /// A pricing policy that never ends in the tier `spin`.
    pub(crate) fn spinning(&self) -> Result<Source> {
        let path = self.target.join("plugins-for-tests/hostile.wasm");
        Ok(Source::plain(read_component(&path)?))
    }
}
