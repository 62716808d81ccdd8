#!/usr/bin/env bash
# Promise: a package installs with `apt install ./x.deb` beside Debian's own Postgres, works when the server loads it,
# goes away whole, and is the same bytes when it is made again somewhere else.
#   test.sh           all of it: Debian 12 with Postgres 15, Debian 13 with 17, sid with 18
#   test.sh bookworm  one release
# Each release is a folder that debootstrap makes once (target/debian/RELEASE) and an overlay that each run begins anew.
# Needs root, debootstrap and lintian; nothing of this machine's Postgres is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test.sh: run it as root: it mounts and enters Debian folders" >&2; exit 1; }
for command in debootstrap lintian; do
    command -v "$command" >/dev/null || { echo "test.sh: apt install $command" >&2; exit 1; }
done
declare -A MAJOR=([bookworm]=15 [trixie]=17 [sid]=18)
place=$(realpath -m "${CARGO_TARGET_DIR:-target}/debian")
version=$(sed -n "s/^default_version = '\(.*\)'$/\1/p" otp_gateway.control)
mkdir -p "$place"
result=()

server() { # server MAJOR: a pg_config with headers for it; Debian's own, or PyPI's
    if [ -e "/usr/include/postgresql/$1/server/postgres.h" ]; then
        echo "/usr/lib/postgresql/$1/bin/pg_config"
    else
        tests/postgres.sh "$place/servers" "$1" >&2
        echo "$place/servers/$1/bin/pg_config"
    fi
}

leave() { # leave DIRECTORY: whatever is mounted in it
    chroot "$1" pkill -x postgres 2>/dev/null || true
    mount | awk -v at="$1" 'index($3, at "/") == 1 { print $3 }' | sort -r | xargs -r umount -l
    umount -l "$1" 2>/dev/null || true
}

in_release() { # in_release RELEASE: the steps a user takes, in a fresh overlay of the release's folder
    local release=$1 major=${MAJOR[$1]} base=$place/$1 run=$place/$1.run
    local deb=postgresql-$major-otp-gateway_$version-1_$(dpkg --print-architecture).deb
    [ -e "$base/etc/debian_version" ] || debootstrap --variant=minbase "$release" "$base" >"$place/$release.log"
    rm -rf "$place/$release.upper" "$place/$release.work"
    mkdir -p "$place/$release.upper" "$place/$release.work" "$run"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$place/$release.upper,workdir=$place/$release.work" "$run"
    trap 'leave '"$run" RETURN
    mount -t proc proc "$run/proc"
    mount --bind /dev "$run/dev"
    cp --remove-destination /etc/resolv.conf "$run/etc/resolv.conf"
    # A package must not start a server that is not there for long.
    printf '#!/bin/sh\nexit 101\n' >"$run/usr/sbin/policy-rc.d"
    chmod +x "$run/usr/sbin/policy-rc.d"
    cp "dist/$deb" packaging/flow.sql "$run/tmp/"
    chroot "$run" /bin/bash -euo pipefail -s "$major" "$deb" "$version" <<'STEPS'
major=$1 deb=$2 version=$3
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends "/tmp/$deb" >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
pg_lsclusters -h | grep -q "^$major main" || pg_createcluster "$major" main >/dev/null
pg_conftool "$major" main set shared_preload_libraries otp_gateway
pg_ctlcluster "$major" main start
sql() { su postgres -c "psql -XAtq -v ON_ERROR_STOP=1 $*"; }
sql -f /tmp/flow.sql
# From what an earlier version made.
sql -c "'CREATE DATABASE earlier'"
sql -d earlier -c "\"CREATE EXTENSION otp_gateway VERSION '0.4.0'\"" -c "'ALTER EXTENSION otp_gateway UPDATE'" -f /tmp/flow.sql
[ "$(sql -d earlier -c "\"SELECT extversion FROM pg_extension WHERE extname = 'otp_gateway'\"")" = "$version" ]
# Removed: first the extension and the setting, then the package.
for database in postgres earlier; do sql -d "$database" -c "'DROP EXTENSION otp_gateway CASCADE'"; done
pg_conftool "$major" main remove shared_preload_libraries
pg_ctlcluster "$major" main restart
apt-get purge -y -q "postgresql-$major-otp-gateway" >/dev/null 2>&1
left=$(find / -xdev -name '*otp[_-]gateway*' -not -path '/proc/*' -not -path '/tmp/*' -not -path '/var/lib/postgresql/*' -not -path '/var/lib/dpkg/*' -not -path '/var/cache/*')
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
pg_ctlcluster "$major" main stop
STEPS
}

[ $# -gt 0 ] || set -- bookworm trixie sid
for release; do
    major=${MAJOR[$release]}
    started=$SECONDS
    packaging/package.sh "$(server "$major")"
    deb=dist/postgresql-$major-otp-gateway_$version-1_$(dpkg --print-architecture).deb
    lintian --no-tag-display-limit --fail-on error "$deb"
    in_release "$release"
    # Once more, in another folder, from nothing.
    again=$(mktemp -d)
    git clone -q . "$again/otp_gateway"
    (cd "$again/otp_gateway" && git checkout -q "$(git -C "$OLDPWD" rev-parse HEAD)" && CARGO_TARGET_DIR=$again/target packaging/package.sh "$(cd "$OLDPWD" && server "$major")" >/dev/null)
    for made in "$again"/otp_gateway/dist/*pg"$major"* "$again"/otp_gateway/dist/postgresql-"$major"*; do
        cmp "$made" "dist/${made##*/}"
    done
    rm -rf "$again"
    result+=("$release  PostgreSQL $major  installed, used, upgraded, removed; built twice, the same bytes  $((SECONDS - started)) s")
done
printf '   %s\n' "${result[@]}"
