#!/bin/sh
# Makes policy.wasm of policy.js. Wants Node.js 20 or newer.
set -eu
cd "$(dirname "$0")"
world=pricing-policy

# Once. After a change of package-lock.json: `npm ci`.
[ -d node_modules ] || npm ci --no-audit --no-fund --loglevel=error
node build.mjs "$world"
