#!/bin/sh
# Builds policy.wasm from policy.js. Requires Node.js 20 or newer.
set -eu
cd "$(dirname "$0")"
world=pricing-policy

# Only the first time; run `npm ci` after a change of package-lock.json.
[ -d node_modules ] || npm ci --no-audit --no-fund --loglevel=error
node build.mjs "$world"
