//! `cargo xtask bench --counts`: the instructions of policy calls and what an order writes, beside
//! what is stored. Tests count them; `cargo xtask test` runs these too.

use crate::compiler::Compiler;
use crate::plugins;
use crate::run::{ALL, step};
use anyhow::Result;

/// Makes the tests store what they have counted.
const BLESS: &str = "PAYGRESS_COUNTS_BLESS";

/// What is done with the stored figures.
#[derive(Clone, Copy)]
pub(crate) enum Baseline {
    Compare,
    Replace,
}

pub(crate) fn count(baseline: Baseline) -> Result<()> {
    plugins::build_defaults()?;
    // The build of the tests, whose figures are stored.
    let mut command = Compiler::Rustc.cargo(&["test", "--quiet"])?;
    command.args(ALL).args(["--test", "counts", "--test", "writes", "--", "--nocapture"]);
    if let Baseline::Replace = baseline {
        command.env(BLESS, "1");
    }
    step("instructions of policy calls, and writes of an order", &mut command)
}
