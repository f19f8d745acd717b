//! waPC on its provider for wasmtime: prepared once, a `WapcHost` for each call.

use crate::files::{Files, Prices};
use crate::runtime::{Runtime, failed, input, price};
use anyhow::{Result, bail};
use paygress_policy::{DEADLINE, MEMORY_BYTES, TICK};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use wapc::WapcHost;
use wasmtime_provider::wasmtime::{Cache, CacheConfig, Config, Engine};
use wasmtime_provider::{
    EpochDeadlines, ResourceLimits, WasmtimeEngineProviderBuilder, WasmtimeEngineProviderPre,
};

pub(crate) const NAME: &str = "wapc";
/// As the policy host limits it.
const TABLE_ELEMENTS: usize = 20_000;

pub(crate) struct WithWapc {
    engine: Engine,
    active: RwLock<Arc<WasmtimeEngineProviderPre>>,
    files: Files,
}

impl WithWapc {
    pub(crate) fn start(files: &Files) -> Result<Self> {
        let engine = engine(None)?;
        let prepared = prepare(&engine, &files.read_guest(NAME, Prices::Usual)?)?;
        Ok(Self { engine, active: RwLock::new(Arc::new(prepared)), files: files.clone() })
    }

    fn call(&self, tier: Option<&str>) -> Result<u64> {
        let prepared = Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner));
        call(&prepared, tier)
    }
}

/// With the clock that deadlines are counted in: waPC leaves that to its user.
fn engine(cache: Option<&Path>) -> Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    if let Some(directory) = cache {
        let mut settings = CacheConfig::new();
        settings.with_directory(directory);
        config.cache(Some(Cache::new(settings).map_err(failed)?));
    }
    let engine = Engine::new(&config).map_err(failed)?;
    let clock = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = clock.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    });
    Ok(engine)
}

fn prepare(engine: &Engine, module: &[u8]) -> Result<WasmtimeEngineProviderPre> {
    let limits = ResourceLimits {
        max_memory_size: Some(MEMORY_BYTES),
        max_table_elements: Some(TABLE_ELEMENTS),
    };
    WasmtimeEngineProviderBuilder::new()
        .engine(engine.clone())
        .module_bytes(module)
        .enable_resource_limits(limits)
        .build_pre()
        .map_err(failed)
}

fn call(prepared: &WasmtimeEngineProviderPre, tier: Option<&str>) -> Result<u64> {
    let input = serde_json::to_vec(&input(tier))?;
    // The first tick may come at once.
    let ticks = u64::try_from(DEADLINE.as_millis() / TICK.as_millis())? + 1;
    let deadlines = EpochDeadlines { wapc_init: ticks, wapc_func: ticks };
    let provider = prepared.rehydrate(Some(deadlines)).map_err(failed)?;
    let host = WapcHost::new(Box::new(provider), None).map_err(failed)?;
    let output = host.call("quote", &input).map_err(failed)?;
    price(&output)
}

impl Runtime for WithWapc {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn quote(&self) -> Result<u64> {
        self.call(None)
    }

    fn spin(&self) -> Result<()> {
        match self.call(Some(beside_decision::SPIN)) {
            Err(error) if error.to_string().contains("deadline exceeded") => Ok(()),
            other => bail!("the spinning guest was not stopped: {other:?}"),
        }
    }

    fn publish(&self, prices: Prices) -> Result<()> {
        let module = self.files.read_guest(NAME, prices)?;
        let prepared = Arc::new(prepare(&self.engine, &module)?);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = prepared;
        Ok(())
    }
}

/// These modules; each has been called once.
pub(crate) fn policies(
    modules: &[Vec<u8>],
    directory: &Path,
) -> Result<Vec<WasmtimeEngineProviderPre>> {
    let engine = engine(Some(&directory.join("compiled")))?;
    let mut policies = Vec::new();
    for module in modules {
        let policy = prepare(&engine, module)?;
        call(&policy, None)?;
        policies.push(policy);
    }
    Ok(policies)
}
