#!/usr/bin/env bash
# Promise: nothing in the code ties it to one Postgres. Type-checks the extension against the bindings of every version
# whose feature it has; pgrx ships them, so that no headers of those versions are needed here.
set -euo pipefail
cd "$(dirname "$0")/.."
export DOCS_RS=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/versions"
bindings=$(cargo metadata --locked --format-version 1 |
    python3 -c 'import json, os, sys; print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == "pgrx-pg-sys"))')/src/include

check() { cargo check --quiet --locked -p otp_gateway --no-default-features --features "$1"; }

for feature in $(sed -nE 's/^(pg[0-9]+) = .*/\1/p' Cargo.toml); do
    # In this mode pgrx makes no bindings, but the place that it includes them from is made by its build: a first run
    # makes it, and the bindings are put there.
    if ! check "$feature" >/dev/null 2>&1; then
        for place in "$CARGO_TARGET_DIR"/debug/build/pgrx-pg-sys-*/out; do
            cp "$bindings/$feature.rs" "$bindings/${feature}_oids.rs" "$place"
        done
        check "$feature"
    fi
    echo "   $feature: compiles"
done
