//! The engines of the author's tools. What they compile is kept in the user's cache directory: the
//! tools are run again and again on one component, and a large one takes a minute to compile.

use paygress_policy::{Compiler, EngineError, PolicyEngine};
use std::path::PathBuf;
use std::sync::Arc;

/// The engine that counts instructions.
pub(crate) fn counting(compiler: &Compiler) -> Result<Arc<PolicyEngine>, EngineError> {
    Ok(or_without_cache(PolicyEngine::with_fuel)?.with_compiler(compiler.clone()))
}

/// The engine that serves, with snapshots as in the service.
pub(crate) fn serving(compiler: &Compiler) -> Result<Arc<PolicyEngine>, EngineError> {
    let engine = or_without_cache(PolicyEngine::start)?;
    Ok(engine.with_compiler(compiler.clone()).with_snapshots())
}

/// A cache that cannot be used costs time, and nothing else.
fn or_without_cache(
    start: impl Fn(Option<&std::path::Path>) -> Result<Arc<PolicyEngine>, EngineError>,
) -> Result<Arc<PolicyEngine>, EngineError> {
    match start(cache_directory().as_deref()) {
        Err(error @ EngineError::Cache { .. }) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "compiled components are not cached");
            start(None)
        }
        started => started,
    }
}

/// `$XDG_CACHE_HOME/paygress/compiled`, or the same under `~/.cache`.
fn cache_directory() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    // Not in the working directory.
    let is_absolute = |path: &PathBuf| path.is_absolute();
    let base = given.filter(is_absolute).or_else(home).filter(is_absolute)?;
    Some(base.join("paygress/compiled"))
}
