#!/bin/sh
# Makes policy.wasm of src/policy.py and the modules that it imports. Wants Python 3.9 or newer.
set -eu
cd "$(dirname "$0")"
world=images-policy

# Several projects may share one: POLICY_VENV.
venv="${POLICY_VENV:-.venv}"
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt

# A policy imports nothing: whatever of WASI the interpreter would call is replaced with a trap. What is imported at the top
# level of the modules is part of the component; no file is read when it runs.
"$venv/bin/componentize-py" --quiet --wit-path wit --world "$world" \
    componentize --stub-wasi --python-path src --output policy.wasm.part policy

# Whole or not at all: a running host may be reading it.
mv policy.wasm.part policy.wasm
