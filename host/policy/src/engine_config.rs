//! The configuration of wasmtime. The service and the process that compiles for it have the same: what
//! one has compiled the other loads.

use crate::limits::{
    BACKTRACE_FRAMES, CALLS, INSTANCES, MEMORY_BYTES, SPARE_INSTANCES, STACK_BYTES, TABLE_ELEMENTS,
    TABLES,
};
use std::num::NonZeroUsize;
use wasmtime::{Config, PoolingAllocationConfig, WasmBacktraceDetails};

/// Whether the engine counts instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metering {
    Off,
    Fuel,
}

/// What decides about the code that is made. It instantiates nothing.
pub(crate) fn compiler_config(metering: Metering) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // The same input gives the same decision, on every processor.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false);
    if metering == Metering::Fuel {
        config
            .consume_fuel(true)
            .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
            .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    }
    config
}

/// The same, of an engine that calls components.
pub(crate) fn config(metering: Metering) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let concurrent = CALLS.saturating_add(SPARE_INSTANCES);
    pool.total_component_instances(concurrent)
        .total_core_instances(concurrent.saturating_mul(INSTANCES))
        .total_memories(concurrent.saturating_mul(2))
        .total_tables(concurrent.saturating_mul(TABLES))
        .max_core_instances_per_component(INSTANCES)
        .max_memories_per_component(2)
        .max_tables_per_component(TABLES)
        .max_memory_size(MEMORY_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(1 << 16);
    let mut config = compiler_config(metering);
    config.allocation_strategy(pool);
    config
}
