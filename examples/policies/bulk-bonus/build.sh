#!/bin/sh
# Makes policy.wasm of the package policy and what it imports. Wants paygress, and Go 1.25 or newer.
set -eu
cd "$(dirname "$0")"
world=duration-policy
PAYGRESS="${PAYGRESS:-paygress}"

# The bindings are packages of this module.
"$PAYGRESS" policy bindings --lang go --world "$world" --wit wit .

# A library: `main` does not run. The bindings call `sbrk` of Go's runtime, which the linker must be told to let them.
GOOS=wasip1 GOARCH=wasm go build -trimpath -buildvcs=false -buildmode=c-shared \
    -ldflags="-s -w -buildid= -checklinkname=0" -o build/core.wasm .

# To a component. What Go's runtime asks an operating system for is answered without one.
"$PAYGRESS" policy component --wit wit --world "$world" build/core.wasm policy.wasm
