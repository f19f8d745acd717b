//! What an error of the engine means for the operator and the author.

use crate::limits::{DEADLINE, MemoryLimitExceeded, OUTPUT_BYTES};
use paygress_core::backend::policy::FaultKind;
use paygress_core::sanitize::plain;
use wasmtime::{FrameSymbol, Trap, WasmBacktrace};

pub(crate) fn classify(error: &wasmtime::Error) -> FaultKind {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => {
                FaultKind::Deadline(u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX))
            }
            Trap::StackOverflow => FaultKind::Stack,
            trap => FaultKind::Trap(format!("{trap}{}", frames(error))),
        };
    }
    if error.is::<MemoryLimitExceeded>() {
        return FaultKind::Memory(error.root_cause().to_string());
    }
    let cause = error.root_cause().to_string();
    match cause.contains("fuel allocated for hostcalls") {
        true => FaultKind::InvalidOutput(format!("more than {OUTPUT_BYTES} bytes")),
        false => FaultKind::InvalidOutput(plain(&cause, 500)),
    }
}

/// The source lines of a trap, if the component has debug information; empty unless the engine is
/// one for authors.
fn frames(error: &wasmtime::Error) -> String {
    let symbols = error
        .downcast_ref::<WasmBacktrace>()
        .into_iter()
        .flat_map(|trace| trace.frames())
        .flat_map(|frame| frame.symbols());
    let line = |symbol: &FrameSymbol| {
        // The author's lines, not those of the language's standard library.
        let (file, line) =
            (symbol.file().filter(|file| !file.starts_with("/rustc/"))?, symbol.line()?);
        Some(format!(
            "\n    at {} ({}:{line})",
            plain(symbol.name().unwrap_or("?"), 200),
            plain(file, 200)
        ))
    };
    symbols.filter_map(line).collect()
}
