//! Each seed of the fuzz targets, and each input that once broke one: kept in `seeds/`, read by
//! every `cargo test`.

// `cargo xtask test` builds this program with coverage, whose functions are libFuzzer's.
#[cfg(feature = "targets")]
use libfuzzer_sys as _;

use std::path::Path;

fn read_seeds(target: &str, read: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        read(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "{} is empty", directory.display());
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
