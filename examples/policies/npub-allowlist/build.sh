#!/bin/sh
# Builds policy.wasm from src/policy.py and its imports. Requires Python 3.9 or newer.
set -eu
cd "$(dirname "$0")"
world=images-policy

# Several projects may share one virtual environment: POLICY_VENV.
venv="${POLICY_VENV:-.venv}"
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt

# A policy must import nothing: the WASI functions that the interpreter imports are replaced with traps. Modules that are
# imported at the top level are part of the component; no file is read at run time.
"$venv/bin/componentize-py" --quiet --wit-path wit --world "$world" \
    componentize --stub-wasi --python-path src --output policy.wasm.part policy

# Replaced atomically: a running host may be reading it.
mv policy.wasm.part policy.wasm
