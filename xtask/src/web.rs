//! The npm packages of the web page, as its lock names them.

use crate::run::{root, step};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Where the page's files are.
const PAGE: &str = "host/http/web";

/// Installs a directory's packages, unless those that its lock names are there. Their install
/// scripts are not run.
pub(crate) fn packages(directory: &str) -> Result<()> {
    let path = root().join(directory);
    let lock = std::fs::read(path.join("package-lock.json"))?;
    // npm's own copy is in another form; this one says for which lock it was.
    let mark = path.join("node_modules/.installed-for");
    if std::fs::read(&mark).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"]).current_dir(&path);
    step(&format!("npm ci in {directory}"), &mut npm)?;
    std::fs::write(mark, lock)?;
    Ok(())
}

pub(crate) fn page() -> Result<()> {
    packages(PAGE)
}

/// For the demo, which goes on without npm: then the page has no terminal.
pub(crate) fn page_if_possible() {
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
