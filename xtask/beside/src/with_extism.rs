//! Extism, as its documentation proposes it: compiled once, a `Plugin` for each call.

use crate::files::{Files, Prices};
use crate::runtime::{Runtime, input, price};
use anyhow::{Result, bail};
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use paygress_policy::{DEADLINE, MEMORY_BYTES};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) const NAME: &str = "extism";
const PAGE_BYTES: usize = 64 << 10;

pub(crate) struct WithExtism {
    active: RwLock<Arc<CompiledPlugin>>,
    files: Files,
}

impl WithExtism {
    pub(crate) fn start(files: &Files) -> Result<Self> {
        let compiled = compile(&files.guest(NAME, Prices::Usual), None)?;
        Ok(Self { active: RwLock::new(Arc::new(compiled)), files: files.clone() })
    }

    fn call(&self, tier: Option<&str>) -> Result<u64> {
        let compiled = Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner));
        call(&compiled, tier)
    }
}

/// Compiled code is cached as the file `cache` says, if there is one.
fn compile(module: &Path, cache: Option<&Path>) -> Result<CompiledPlugin> {
    let manifest = Manifest::new([Wasm::file(module)])
        .with_memory_max(u32::try_from(MEMORY_BYTES / PAGE_BYTES)?)
        .with_timeout(DEADLINE)
        .disallow_all_hosts();
    let builder = PluginBuilder::new(manifest);
    match cache {
        Some(cache) => builder.with_cache_config(cache).compile(),
        None => builder.with_cache_disabled().compile(),
    }
}

fn call(compiled: &CompiledPlugin, tier: Option<&str>) -> Result<u64> {
    let input = serde_json::to_vec(&input(tier))?;
    let mut plugin = Plugin::new_from_compiled(compiled)?;
    let output: Vec<u8> = plugin.call("quote", input)?;
    price(&output)
}

impl Runtime for WithExtism {
    fn name(&self) -> String {
        // It ends with a zero byte.
        format!("{NAME} {}", extism::extism_version().trim_end_matches('\0'))
    }

    fn quote(&self) -> Result<u64> {
        self.call(None)
    }

    fn spin(&self) -> Result<()> {
        match self.call(Some(beside_decision::SPIN)) {
            Err(error) if error.to_string().contains("timeout") => Ok(()),
            other => bail!("the spinning guest was not stopped: {other:?}"),
        }
    }

    fn publish(&self, prices: Prices) -> Result<()> {
        let compiled = Arc::new(compile(&self.files.guest(NAME, prices), None)?);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = compiled;
        Ok(())
    }
}

/// These modules; each has been called once.
pub(crate) fn policies(modules: &[Vec<u8>], directory: &Path) -> Result<Vec<CompiledPlugin>> {
    let cache = directory.join("cache.toml");
    let compiled = directory.join("compiled");
    std::fs::write(&cache, format!("[cache]\ndirectory = {:?}\n", compiled.display().to_string()))?;
    let mut policies = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        let path = directory.join(format!("{index}.wasm"));
        std::fs::write(&path, module)?;
        let policy = compile(&path, Some(&cache))?;
        call(&policy, None)?;
        policies.push(policy);
    }
    Ok(policies)
}
