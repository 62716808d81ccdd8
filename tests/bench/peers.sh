#!/usr/bin/env bash
# peers.sh DIRECTORY   what `make bench` compares with: pgsql-http and pg_net, fetched from their public repositories into
# DIRECTORY, built for the Postgres of PG_CONFIG, and installed there. Does nothing for those that are installed.
# PGSQL_HTTP and PG_NET name other places to fetch from: a URL, or a directory.
set -euo pipefail
mkdir -p "$1"
directory=$(cd "$1" && pwd)
pg_config=${PG_CONFIG:-pg_config}
extensions=$("$pg_config" --sharedir)/extension
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

peer() { # peer NAME CONTROL FROM COMMIT
    [ ! -f "$extensions/$2.control" ] || return 0
    echo "   $1: fetching, building, installing"
    rm -rf "${directory:?}/$1"
    git clone -q --no-checkout "$3" "$directory/$1"
    # One commit, so that a figure of today can be had again.
    git -C "$directory/$1" checkout -q "$4"
    make -s -C "$directory/$1" PG_CONFIG="$pg_config" >"$directory/$1.log" 2>&1 \
        && $sudo make -s -C "$directory/$1" PG_CONFIG="$pg_config" install >>"$directory/$1.log" 2>&1 \
        || { tail -5 "$directory/$1.log" >&2; return 1; }
}

if [ ! -f "$extensions/http.control" ] || [ ! -f "$extensions/pg_net.control" ]; then
    if ! command -v curl-config >/dev/null; then
        $sudo apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends git libcurl4-openssl-dev >/dev/null
    fi
fi
peer pgsql-http http "${PGSQL_HTTP:-https://github.com/pramsey/pgsql-http}" ee52345b5929f63a3871685f85974f34b5fa8508
peer pg_net pg_net "${PG_NET:-https://github.com/supabase/pg_net}" 68ef0bf044b7a44f2e075b06609555a298ecb0bd
