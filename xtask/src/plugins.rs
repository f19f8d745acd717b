//! Builds the policies: Rust to core WebAssembly, core WebAssembly to components.

use crate::run::{cargo, root, step, target, toolchain};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use wit_component::ComponentEncoder;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// Slot and crate of each default policy.
const DEFAULTS: [(&str, &str); 4] = [
    ("images", "paygress-plugin-images"),
    ("pricing", "paygress-plugin-pricing"),
    ("duration", "paygress-plugin-duration"),
    ("pod-template", "paygress-plugin-pod-template"),
];
/// Components that are not installed: where they go, and their crates.
const OTHERS: [(&str, &str); 15] = [
    // For the policy host's tests.
    ("plugins-for-tests/hostile.wasm", "paygress-hostile-policy"),
    ("plugins-for-tests/hostile-images.wasm", "paygress-hostile-images-policy"),
    ("plugins-for-tests/old-duration.wasm", "paygress-old-duration-policy"),
    ("plugins-examples/coupons.wasm", "paygress-example-coupons"),
    ("plugins-examples/daily-budget.wasm", "paygress-example-daily-budget"),
    ("plugins-examples/fair-share.wasm", "paygress-example-fair-share"),
    ("plugins-examples/first-hour.wasm", "paygress-example-first-hour"),
    ("plugins-examples/flat-price.wasm", "paygress-example-flat-price"),
    ("plugins-examples/gpu-template.wasm", "paygress-example-gpu-template"),
    ("plugins-examples/node-port.wasm", "paygress-example-node-port"),
    ("plugins-examples/price-table.wasm", "paygress-example-price-table"),
    ("plugins-examples/regions.wasm", "paygress-example-regions"),
    ("plugins-examples/signed-images.wasm", "paygress-example-signed-images"),
    ("plugins-examples/surge-price.wasm", "paygress-example-surge-price"),
    ("plugins-examples/web-of-trust.wasm", "paygress-example-web-of-trust"),
];

pub(crate) fn build() -> Result<()> {
    let defaults = DEFAULTS.map(|(slot, package)| (format!("plugins/{slot}.wasm"), package));
    let others = OTHERS.map(|(path, package)| (path.to_owned(), package));
    compile(&[defaults.as_slice(), &others].concat())
}

/// The default policies only.
pub(crate) fn build_defaults() -> Result<()> {
    compile(&DEFAULTS.map(|(slot, package)| (format!("plugins/{slot}.wasm"), package)))
}

/// Slot and file of each default policy.
pub(crate) fn default_files() -> [(&'static str, PathBuf); 4] {
    DEFAULTS.map(|(slot, _)| (slot, target().join(format!("plugins/{slot}.wasm"))))
}

/// The default policies, and the one that the demo exchanges one for.
pub(crate) fn build_for_demo() -> Result<()> {
    let defaults = DEFAULTS.map(|(slot, package)| (format!("plugins/{slot}.wasm"), package));
    let flat_price = OTHERS
        .iter()
        .filter(|(_, package)| *package == "paygress-example-flat-price")
        .map(|(path, package)| ((*path).to_owned(), *package));
    compile(&defaults.into_iter().chain(flat_price).collect::<Vec<_>>())
}

/// Builds these crates into these files below `target`.
fn compile(components: &[(String, &str)]) -> Result<()> {
    toolchain(&[TARGET])?;
    let mut command = cargo(&["build", "--quiet", "--profile", "plugin", "--target", TARGET])?;
    for (_, package) in components {
        command.args(["--package", package]);
    }
    // The same source gives the same bytes wherever it is built: panics name files.
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    command.env(
        "RUSTFLAGS",
        format!(
            "--remap-path-prefix={}=paygress --remap-path-prefix={home}=cargo",
            root().display()
        ),
    );
    step("build the policies", &mut command)?;
    for (path, package) in components {
        component(package, &target().join(path))?;
    }
    Ok(())
}

fn component(package: &str, to: &Path) -> Result<()> {
    let core =
        target().join(TARGET).join("plugin").join(format!("{}.wasm", package.replace('-', "_")));
    let module = std::fs::read(&core).with_context(|| format!("{} is missing", core.display()))?;
    let component = ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    // Atomically: a running host may be reading it.
    let partial = to.with_extension("part");
    std::fs::write(&partial, &component)?;
    std::fs::rename(&partial, to)?;
    println!(
        "   {} ({} KB)",
        to.strip_prefix(root()).unwrap_or(to).display(),
        component.len().div_ceil(1_000)
    );
    Ok(())
}
