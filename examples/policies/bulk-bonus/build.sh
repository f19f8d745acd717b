#!/bin/sh
# Builds policy.wasm from the package policy and its imports. Requires paygress, and Go 1.25 or newer.
set -eu
cd "$(dirname "$0")"
world=duration-policy
PAYGRESS="${PAYGRESS:-paygress}"

# The bindings are packages of this module.
"$PAYGRESS" policy bindings --lang go --world "$world" --wit wit .

# A library: `main` does not run. The bindings call `sbrk` of Go's runtime, which the linker allows only with a flag.
GOOS=wasip1 GOARCH=wasm go build -trimpath -buildvcs=false -buildmode=c-shared \
    -ldflags="-s -w -buildid= -checklinkname=0" -o build/core.wasm .

# Makes it a component. The WASI imports of Go's runtime are replaced.
"$PAYGRESS" policy component --wit wit --world "$world" build/core.wasm policy.wasm
