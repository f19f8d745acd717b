//! What the page is served with: npm's packages, as its lock names them.

use crate::run::{root, step};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Where the page's files are.
const PAGE: &str = "host/http/web";

/// Installs a folder's packages, unless those that its lock names are there. What packages would
/// run when they are installed is not run.
pub(crate) fn packages(folder: &str) -> Result<()> {
    let directory = root().join(folder);
    let lock = std::fs::read(directory.join("package-lock.json"))?;
    // npm keeps a copy in words of its own; ours says for which lock it was.
    let mark = directory.join("node_modules/.installed-for");
    if std::fs::read(&mark).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"])
        .current_dir(&directory);
    step(&format!("npm ci in {folder}"), &mut npm)?;
    std::fs::write(mark, lock)?;
    Ok(())
}

/// The page's own.
pub(crate) fn page() -> Result<()> {
    packages(PAGE)
}

/// The same for a demo: without npm the page has no terminal, and all the rest goes on.
pub(crate) fn page_if_it_can_be() {
    if root().join(Path::new(PAGE).join("node_modules")).exists()
        || Command::new("npm").arg("--version").output().is_ok()
    {
        if let Err(error) = page() {
            println!("   {error:#}: the page will be without its terminal");
        }
    } else {
        println!("   npm is not there: the page will be without its terminal");
    }
}
