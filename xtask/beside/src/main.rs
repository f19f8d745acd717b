//! The pricing decision by the policy host, by Extism and by waPC, in one run on one machine:
//! `cargo xtask bench --beside`. All have a fresh instance for each call, 64 MiB of memory and a
//! deadline of 100 ms.
//!
//! `paygress-beside TARGET` measures everything; `TARGET` has the policies and the guests.
//! `paygress-beside TARGET memory NAME DIRECTORY` is one child of that.

mod files;
mod measure;
mod memory;
mod ours;
mod report;
mod runtime;
mod with_extism;
mod with_wapc;

use anyhow::{Context, Result, bail};
use files::Files;
use ours::Ours;
use runtime::Runtime;
use std::path::Path;
use with_extism::WithExtism;
use with_wapc::WithWapc;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [target] => all(&Files::new(target.into())),
        [target, "memory", name, directory] => {
            let files = Files::new((*target).into());
            println!("{}", memory::of_policies(&files, name, Path::new(directory))?);
            Ok(())
        }
        _ => bail!("start it by `cargo xtask bench --beside`"),
    }
}

fn all(files: &Files) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ours = Ours::start(files, &directory.path().join("compiled")).context("the policy host")?;
    let extism = WithExtism::start(files).context("Extism")?;
    let wapc = WithWapc::start(files).context("waPC")?;
    let runtimes: [&dyn Runtime; 3] = [&ours, &extism, &wapc];
    let rows = [
        measure::latencies(&runtimes)?,
        measure::throughputs(&runtimes)?,
        memory::measure(files, &runtimes, directory.path())?,
        measure::stops(&runtimes)?,
        measure::swaps(&runtimes)?,
    ]
    .concat();
    println!("{}", report::table(&runtimes.map(|runtime| runtime.name()), &rows));
    Ok(())
}
