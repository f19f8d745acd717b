//! The configuration of wasmtime. The service and the process that compiles for it have the same: what
//! one has compiled the other loads.

use crate::limits::{
    BACKTRACE_FRAMES, CALLS, COUNTED_INSTANCES, IMAGE_BYTES, INSTANCES, MEMORY_BYTES,
    RESIDENT_BYTES, SPARE_INSTANCES, STACK_BYTES, TABLE_ELEMENTS, TABLES, WRITTEN_BYTES,
};
use std::num::NonZeroUsize;
use wasmtime::{Config, Enabled, PoolingAllocationConfig, WasmBacktraceDetails};

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
        .memory_guaranteed_dense_image_size(IMAGE_BYTES)
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
    let mut config = compiler_config(metering);
    let mut pool = pool(CALLS.saturating_add(SPARE_INSTANCES));
    // Only what a call has written to is made as it was, wherever that is.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(WRITTEN_BYTES);
    }
    config.allocation_strategy(pool);
    config
}

/// Opens what tells which pages calls have written to, for all engines of this process. To be
/// called before the process forbids that its memory is read, after which it may not open that
/// itself. Engines are slower without it, and otherwise the same.
pub fn open_page_map() {
    // It stays open.
    let _ = PoolingAllocationConfig::is_pagemap_scan_available();
}

/// The same, of an engine that calls components in a processor that another program emulates: it has
/// little address space, and what is compiled outside of it has to run there.
pub(crate) fn config_for_counts() -> wasmtime::Result<Config> {
    let mut config = compiler_config(Metering::Off);
    // A target that is named has nothing that only some of its processors have.
    config.target(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))?;
    config.allocation_strategy(pool(COUNTED_INSTANCES));
    Ok(config)
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(INSTANCES))
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(TABLES))
        .max_core_instances_per_component(INSTANCES)
        .max_memories_per_component(2)
        .max_tables_per_component(TABLES)
        .max_memory_size(MEMORY_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .table_keep_resident(1 << 16);
    pool
}
