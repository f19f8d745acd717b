#!/bin/sh
# Makes policy.wasm of src/lib.rs. Wants paygress, and Rust by rustup.
set -eu
cd "$(dirname "$0")"
PAYGRESS="${PAYGRESS:-paygress}"

cargo build --quiet --release --target wasm32-unknown-unknown
"$PAYGRESS" policy component "${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/policy.wasm" policy.wasm
