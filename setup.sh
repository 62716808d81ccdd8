#!/usr/bin/env bash
# setup.sh          installs what building and testing need on a Debian machine: a C compiler and libclang (for the
#                   bindings), Python's pytest and psycopg2, pgaudit, PgBouncer (its service is left off) and
#                   nss_wrapper, which makes up host names (for the gateway tests), Python's venv (for pgspot), and
#                   Rust. Postgres, with the cluster that Debian makes of it, only on a machine that has none; of one
#                   that is there, the headers. Says what it does; does nothing where everything is there.
# setup.sh check    installs nothing: says what building lacks, and where that comes from, and ends with 1 if it lacks
#                   something.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
PATH="$HOME/.cargo/bin:$PATH"

say() { printf '   %s\n' "$*"; }

pg_config=${PG_CONFIG:-$(command -v pg_config || echo /usr/bin/pg_config)}
ask() { "$pg_config" "--$1" 2>/dev/null || true; }

# rust-version in Cargo.toml; Debian's own is older.
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/Cargo.toml")
rust() { cargo --version 2>/dev/null | awk '{ print $2 }' || true; }
is_new_enough() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$wanted" "$1" | sort -V | head -n 1)" = "$wanted" ]; }

check() {
    local lacks=0 have
    lack() { # lack WHAT HOW
        [ "$lacks" = 1 ] || say "building the extension needs what is not here:"
        lacks=1
        printf '   - %s\n       %s\n' "$1" "$2"
    }
    if [ ! -x "$pg_config" ]; then
        lack "$pg_config, which names the Postgres to build for" \
            "make ... PG_CONFIG=/path/to/pg_config, or your distribution's postgresql-server-dev-<version>"
    elif [ ! -e "$(ask includedir-server)/postgres.h" ]; then
        lack "the headers of $(ask version)" "your distribution's postgresql-server-dev-$(ask version | sed -E 's/[^0-9]*([0-9]+).*/\1/')"
    fi
    command -v cc >/dev/null || lack "a C compiler" "Debian's build-essential"
    command -v clang >/dev/null || lack "clang, which reads Postgres' headers" "Debian's clang and libclang-dev"
    have=$(rust)
    is_new_enough "$have" || lack "Rust $wanted or newer${have:+ (here is $have)}" "https://rustup.rs"
    [ "$lacks" = 0 ] || say "make setup installs all of it on a Debian machine. Nothing was installed."
    return "$lacks"
}

case ${1:-} in
check) check; exit ;;
"") ;;
*) echo "usage: setup.sh [check]" >&2; exit 1 ;;
esac

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

# One that was asked for and is not there is a slip of the pen, and no reason to install another.
if [ -z "${PG:-}" ] && [ -n "${PG_CONFIG:-}" ] && [ "$PG_CONFIG" != /usr/bin/pg_config ] && [ ! -x "$PG_CONFIG" ]; then
    say "PG_CONFIG is $PG_CONFIG, which is not there: name the pg_config of the Postgres to build for. Nothing was installed."
    exit 1
fi

has_postgres() {
    [ -n "${PG:-}" ] || [ -x "$(ask bindir)/postgres" ] || command -v postgres >/dev/null ||
        [ -n "$(find "/usr/lib/postgresql" -path '*/bin/postgres' -print -quit 2>/dev/null)" ]
}

for package in build-essential ca-certificates clang curl libclang-dev libnss-wrapper openssl pkg-config python3 python3-psycopg2 python3-pytest python3-venv; do
    need "$package"
done
if ! has_postgres; then
    if pgrep -x postgres >/dev/null 2>&1; then
        say "a Postgres runs on this machine, and its pg_config is not in PATH: name it by PG_CONFIG=. Nothing was installed."
        exit 1
    fi
    need postgresql
fi
install_missing

# One of PyPI's, if a version is asked for.
[ -z "${PG:-}" ] || "$here/tests/postgres.sh" "$OTP_SERVERS" "$PG"

# The headers of the Postgres that PG_CONFIG names, or of Debian's own.
if [ ! -e "$(ask includedir-server)/postgres.h" ]; then
    major=$(ask version | sed -nE 's/^PostgreSQL ([0-9]+).*/\1/p')
    [ -n "$major" ] || major=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | tail -n 1)
    need "postgresql-server-dev-$major"
    install_missing
fi

# Of PgBouncer the tests start their own: Debian's is not to listen because of them.
if ! dpkg-query -W -f '${db:Status-Status}' pgbouncer 2>/dev/null | grep -qx installed; then
    need pgbouncer
    install_missing
    $sudo systemctl disable -q --now pgbouncer 2>/dev/null || true
fi

# What pgaudit logs of our calls is tested. A Postgres that is not Debian's brings its own.
libraries=$(ask pkglibdir)
if [ ! -e "$libraries/pgaudit.so" ] && [[ $libraries =~ ^/usr/lib/postgresql/([0-9]+)/lib$ ]]; then
    need "postgresql-${BASH_REMATCH[1]}-pgaudit"
    install_missing
fi

have=$(rust)
if ! is_new_enough "$have"; then
    say "installing Rust with rustup (have: ${have:-none}, need $wanted)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile default --no-modify-path
fi
say "PostgreSQL: $(ask version); Rust: $(cargo --version)"
