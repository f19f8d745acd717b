//! The pricing component on wasmtime alone: what the host does for a call, without its limits and
//! checks, its counting, and the crossing to another thread.

use bindings::paygress::policy::types;
use paygress_policy::Source;
use std::collections::BTreeMap;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use wasmtime::component::{Component, ComponentExportIndex, Instance, Lift, Linker};
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig, Store, WasmBacktraceDetails};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

/// The contract as wasmtime alone takes it.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit/1.3", world: "pricing-policy" });
}

/// What a store lets its guests copy out: the whole memory, for a snapshot.
const COPIED_BYTES: usize = 128 << 20;

pub(crate) struct BarePolicy {
    engine: Engine,
    pre: bindings::PricingPolicyPre<()>,
    /// What each call begins with; none in a snapshot.
    settings: Option<String>,
    order: types::Order,
    context: types::Context,
}

impl BarePolicy {
    /// Each call instantiates, configures and quotes.
    pub(crate) fn configured_in_each_call(source: &Source, now: u64) -> Self {
        Self::new(engine(), &source.component, Some(source.settings.clone()), now)
    }

    /// Each call instantiates what has been configured already, and quotes.
    pub(crate) fn from_snapshot(source: &Source, now: u64) -> Self {
        let engine = engine();
        let snapshot = snapshot(&engine, source);
        Self::new(engine, &snapshot, None, now)
    }

    fn new(engine: Engine, component: &[u8], settings: Option<String>, now: u64) -> Self {
        let component = Component::from_binary(&engine, component).unwrap();
        let pre = Linker::<()>::new(&engine).instantiate_pre(&component).unwrap();
        let pre = bindings::PricingPolicyPre::new(pre).unwrap();
        let (order, context) = arguments(now);
        Self { engine, pre, settings, order, context }
    }

    pub(crate) fn quote(&self) -> types::Quote {
        let mut store = store(&self.engine);
        let world = self.pre.instantiate(&mut store).unwrap();
        if let Some(settings) = &self.settings {
            let interface = world.paygress_policy_settings();
            interface.call_configure(&mut store, settings).unwrap().unwrap();
        }
        let pricing = world.paygress_policy_pricing();
        pricing.call_quote(&mut store, &self.order, &self.context).unwrap().unwrap()
    }
}

/// The host's configuration, as far as it is part of the work of a call.
fn engine() -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(4)
        .total_core_instances(64)
        .total_memories(8)
        .total_tables(64)
        .max_memory_size(64 << 20)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(1 << 16);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(4 << 20);
    }
    let mut config = Config::new();
    config
        .allocation_strategy(pool)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false);
    Engine::new(&config).unwrap()
}

fn store(engine: &Engine) -> Store<()> {
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    store
}

/// The order and context of the host's side, in the contract's types.
fn arguments(now_unix_seconds: u64) -> (types::Order, types::Context) {
    let order = types::Order {
        id: "a".to_owned(),
        customer: "c".repeat(64),
        purpose: types::Purpose::Spawn,
        image: None,
        tier: None,
        username: "user".to_owned(),
        wanted_seconds: None,
    };
    let context = types::Context {
        now_unix_seconds,
        capacity_leases: 100,
        active_leases: 0,
        customer_leases: Vec::new(),
        history: None,
        utilisation: None,
    };
    (order, context)
}

/// The component as it is once it has taken its settings, as the host makes it.
fn snapshot(engine: &Engine, source: &Source) -> Vec<u8> {
    let mut wizer = Wizer::new();
    wizer.keep_init_func(true);
    let (context, instrumented) = wizer.instrument_component(&source.component).unwrap();
    let mut state = ConfiguredState::new(engine, &instrumented, &source.settings);
    // It waits for nothing but the state, which is there.
    let snapshot = pin!(wizer.snapshot_component(&context, &mut state));
    match snapshot.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(snapshot) => snapshot.unwrap(),
        Poll::Pending => unreachable!("wizer waits"),
    }
}

/// An instance that has been configured, for wizer to read.
struct ConfiguredState {
    store: Store<()>,
    instance: Instance,
    /// By accessor: wizer reads each twice, and each access changes it.
    memories: BTreeMap<String, Vec<u8>>,
}

impl ConfiguredState {
    fn new(engine: &Engine, instrumented: &[u8], settings: &str) -> Self {
        let component = Component::from_binary(engine, instrumented).unwrap();
        let mut store = store(engine);
        store.set_hostcall_fuel(COPIED_BYTES);
        let pre = Linker::<()>::new(engine).instantiate_pre(&component).unwrap();
        let instance = pre.instantiate(&mut store).unwrap();
        let export = export(&mut store, instance, "paygress:policy/settings@1.0.0", "configure");
        let configure = instance
            .get_typed_func::<(&str,), (Result<(), Vec<types::Problem>>,)>(&mut store, &export)
            .unwrap();
        let (configured,) = configure.call(&mut store, (settings,)).unwrap();
        configured.unwrap();
        Self { store, instance, memories: BTreeMap::new() }
    }

    /// Calls one of the functions that wizer has added.
    fn read<R: Lift + 'static>(&mut self, interface: &str, name: &str) -> R {
        let export = export(&mut self.store, self.instance, interface, name);
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, &export).unwrap();
        let (value,) = function.call(&mut self.store, ()).unwrap();
        value
    }
}

fn export(
    store: &mut Store<()>,
    instance: Instance,
    interface: &str,
    name: &str,
) -> ComponentExportIndex {
    let interface = instance.get_export_index(&mut *store, None, interface).unwrap();
    instance.get_export_index(&mut *store, Some(&interface), name).unwrap()
}

impl ComponentInstanceState for ConfiguredState {
    fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) -> impl Future<Output = ()> + Send {
        let memory =
            self.memories.remove(func).unwrap_or_else(|| self.read::<Vec<u8>>(instance, func));
        contents(&memory);
        self.memories.insert(func.to_owned(), memory);
        ready(())
    }

    fn call_func_ret_s32(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = i32> + Send {
        ready(self.read::<i32>(instance, func))
    }

    fn call_func_ret_s64(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = i64> + Send {
        ready(self.read::<i64>(instance, func))
    }

    fn call_func_ret_f32(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = u32> + Send {
        ready(self.read::<f32>(instance, func).to_bits())
    }

    fn call_func_ret_f64(
        &mut self,
        instance: &str,
        func: &str,
    ) -> impl Future<Output = u64> + Send {
        ready(self.read::<f64>(instance, func).to_bits())
    }
}
