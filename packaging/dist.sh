#!/usr/bin/env bash
# dist.sh   makes dist/otp_gateway-VERSION.zip of the last commit, as PGXN takes it: one folder of that name, META.json in
# it. `make && make install` in it needs Rust and the server's headers, and no cargo-pgrx.
set -euo pipefail
cd "$(dirname "$0")/.."
name=otp_gateway-$(sed -n "s/^default_version = '\(.*\)'$/\1/p" otp_gateway.control)
mkdir -p dist
# The commit's time, not today's: the same commit gives the same bytes.
TZ=UTC git archive --format=zip --prefix="$name/" -o "dist/$name.zip" HEAD
echo "   dist/$name.zip"
