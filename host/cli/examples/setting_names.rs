//! Prints the names of settings, a line each. `cargo xtask generate` writes them to
//! `k8s/chart/values.schema.json`.
#![allow(clippy::print_stdout)]

use paygress::config::keys::deployed;

fn main() {
    for name in deployed() {
        println!("{name}");
    }
}
