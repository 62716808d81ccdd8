#!/usr/bin/env bash
# dist.sh [--into DIRECTORY]   makes otp_gateway-VERSION.zip of the last commit in dist/ or that directory, as PGXN
# takes it: one folder of that name, META.json in it. `make && make install` in it needs Rust and the server's headers,
# and no cargo-pgrx.
set -euo pipefail
cd "$(dirname "$0")/.."
into=dist
[ "${1:-}" != --into ] || into=$2
name=otp_gateway-$(sed -n "s/^default_version = '\(.*\)'$/\1/p" otp_gateway.control)
mkdir -p "$into"
# The zip has local times: the same commit gives the same bytes everywhere.
TZ=UTC git archive --format=zip --prefix="$name/" -o "$into/$name.zip" HEAD
echo "   $into/$name.zip"
