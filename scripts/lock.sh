#!/bin/sh
# Resolve the dependencies again: dev.txt first, then the smaller sets with dev.txt as their bound, so that all agree on every version.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install -q uv
compile() { .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
compile --upgrade --extra dev pyproject.toml -o requirements/dev.txt
for extra in edge cloud sim; do compile -c requirements/dev.txt --extra "$extra" pyproject.toml -o "requirements/$extra.txt"; done
compile -c requirements/dev.txt requirements/build.in -o requirements/build.txt
compile requirements/bench.in -o requirements/bench.txt # the kernels' peers live in an environment of their own
