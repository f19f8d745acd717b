//! Each seed of the fuzz targets, and each input that once broke one: kept in `seeds/`, read by
//! every `cargo test`.
#![cfg(test)]

// `cargo xtask test` builds this program with coverage, whose functions are libFuzzer's.
#[cfg(feature = "targets")]
use libfuzzer_sys as _;

use std::path::Path;

fn read_seeds(target: &str, read: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    assert!(!seeds.is_empty(), "{} is empty", directory.display());
    for seed in seeds {
        read(&std::fs::read(seed.unwrap().path()).unwrap());
    }
}

#[test]
fn tokens() {
    read_seeds("token", paygress_fuzz::token);
}

#[test]
fn messages() {
    read_seeds("message", paygress_fuzz::message);
}

#[test]
fn templates() {
    read_seeds("template", paygress_fuzz::template);
}
