#!/bin/sh
# Builds policy.wasm from policy.c. Requires paygress, clang and lld (in Debian: clang-19 and lld-19).
set -eu
cd "$(dirname "$0")"
world=pricing-policy
PAYGRESS="${PAYGRESS:-paygress}" CLANG="${CLANG:-$(command -v clang-19 || echo clang)}"

"$PAYGRESS" policy bindings --lang c --world "$world" --wit wit build

# No operating system and no C library, so that nothing is imported. The object file of the bindings has the types.
"$CLANG" --target=wasm32-unknown-unknown -std=c17 -Os -ffreestanding -nostdlib -mbulk-memory -ffunction-sections -fdata-sections \
    -Wall -Wextra -Werror -isystem lib/freestanding -isystem build -I lib \
    -Wl,--no-entry -Wl,--gc-sections -Wl,--stack-first -Wl,--strip-debug \
    policy.c lib/*.c build/bindings.c build/bindings_component_type.o -o build/core.wasm

"$PAYGRESS" policy component build/core.wasm policy.wasm
