#!/usr/bin/env bash
# Promise: a package installs with `apt install ./x.deb` beside Debian's own Postgres, works when the server loads it,
# touches no cluster when it comes, is upgraded or goes, and leaves nothing behind; the archives work for servers that
# are not Debian's; and whoever makes them again from the same sources has the same bytes.
#
#   test.sh           all of it; needs root, and what `make setup-packages` installs
#   test.sh PART...   parts of it, in the order that is given:
#     twice                  made in two folders, byte by byte the same
#     bookworm trixie sid    Debian 12 with its Postgres 15, 13 with 17, sid with 18, upgraded from the last version's
#     image                  the steps of packaging/Dockerfile, in Debian 12 laid out as the image that it begins with
#     archive                the .tar.gz of 16 over PyPI's server, and CloudNativePG's folders on PyPI's 18
#     pgxn                   META.json is valid, and pgxnclient installs the sources of the last commit, for 14
#
# OTP_PACKAGES (/opt/otp_gateway/packages) keeps Debian's folders, the servers, and what was made of the last version.
# No Postgres of this machine is touched: each Debian is an overlay over its folder, in a mount and process namespace of
# its own, that each run begins anew.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test.sh: run it as root: it enters Debian folders" >&2; exit 1; }
declare -A MAJOR=([bookworm]=15 [trixie]=17 [sid]=18)
place=${OTP_PACKAGES:-/opt/otp_gateway/packages}
tools=$place/tools made=$place/made servers=$place/servers
for tool in debootstrap lintian "$tools/bin/pgxn_meta" "$tools/venv/bin/pgxnclient"; do
    command -v "$tool" >/dev/null || { echo "test.sh: $tool is missing: make setup-packages" >&2; exit 1; }
done
version=$(sed -n "s/^default_version = '\(.*\)'$/\1/p" otp_gateway.control)
architecture=$(dpkg --print-architecture)
# One for all that is made here.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
scratch=$(mktemp -d)
chmod 755 "$scratch"
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$made"

deb_of() { echo "postgresql-$1-otp-gateway_$2-1_$architecture.deb"; }

make_for() { # make_for MAJOR: as `make package` does
    [ -n "${MADE[$1]:-}" ] || packaging/package.sh --into "$made" "$1"
    MADE[$1]=yes
}
declare -A MADE=()

# The last version is the one that the newest upgrade script comes from; its sources are those of the commit before this
# version began. What makes a package of them is of today: it had none.
make_previous() { # make_previous MAJOR
    local script began sources=$place/previous/sources
    script=$(ls sql/upgrade/otp_gateway--*--"$version".sql)
    previous=${script#*--} previous=${previous%%--*}
    [ ! -e "$place/previous/$(deb_of "$1" "$previous")" ] || return 0
    began=$(git log --format=%H -S"default_version = '$version'" -- otp_gateway.control | tail -n 1)
    echo "   the package of $previous, for PostgreSQL $1"
    rm -rf "$sources" && mkdir -p "$sources"
    git archive "$began^" | tar -x -C "$sources"
    mkdir -p "$sources/tests" "$sources/examples" "$sources/contrib" "$sources/monitoring"
    cp -r packaging Makefile setup.sh "$sources/" && cp tests/postgres.sh "$sources/tests/"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$began^") CARGO_TARGET_DIR=$place/previous/target \
        "$sources/packaging/package.sh" --into "$place/previous" "$1"
}

twice() {
    local again=$scratch/again/elsewhere major file
    make_for 15
    mkdir -p "$again"
    git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$again"
    CARGO_TARGET_DIR=$scratch/again/target "$again/packaging/package.sh" --into "$scratch/again/made" 15
    for file in "$(deb_of 15 "$version")" "otp_gateway-$version-pg15-$(uname -m)-linux-gnu.tar.gz"; do
        cmp "$scratch/again/made/$file" "$made/$file"
    done
    rm -rf "$scratch/again"
}

enter() { # enter RELEASE SCRIPT ARGUMENT...: runs the script in that Debian, where /test has what is in $scratch/in
    local base=$place/$1 mirror
    if [ ! -e "$base/etc/debian_version" ]; then
        mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
        debootstrap --variant=minbase "$1" "$base.new" "$mirror" >"$place/$1.log"
        mv "$base.new" "$base"
    fi
    mkdir -p "$scratch/tmpfs" "$place/$1.apt"
    unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
        base=$1 scratch=$2; shift 2
        # On a tmpfs nothing stays behind, however this ends.
        mount -t tmpfs tmpfs "$scratch/tmpfs"
        cd "$scratch/tmpfs"
        mkdir upper work run
        mount -t overlay overlay -o "lowerdir=$base,upperdir=upper,workdir=work" run
        cd run
        mkdir -p test
        mount -t proc proc proc
        mount --rbind /dev dev
        mount --bind "$scratch/in" test
        mount --bind "$base.apt" var/cache/apt/archives
        cp --remove-destination /etc/resolv.conf etc/resolv.conf
        # A mirror that stands still will do.
        echo "Acquire::Check-Valid-Until \"false\";" >etc/apt/apt.conf.d/99-test
        chroot . /bin/bash "$@"
    ' enter "$base" "$scratch" "/test/$2" "${@:3}"
    rm -rf "$scratch/in"
}

bring() { # bring FILE...: into the next Debian's /test
    mkdir -p "$scratch/in"
    cp packaging/flow.sql "$@" "$scratch/in/"
}

debian() { # debian RELEASE
    local major=${MAJOR[$1]}
    make_for "$major"
    make_previous "$major"
    lintian --fail-on error "$made/$(deb_of "$major" "$version")"
    bring "$made/$(deb_of "$major" "$version")" "$place/previous/$(deb_of "$major" "$previous")" packaging/steps.sh
    enter "$1" steps.sh "$major" "$previous" "$version" "$architecture"
}

image() {
    make_for 15
    bring "$made/$(deb_of 15 "$version")" packaging/Dockerfile packaging/image_steps.sh
    enter bookworm image_steps.sh 15
}

server() { # server MAJOR: PyPI's, with nothing of ours in it
    tests/postgres.sh "$servers" "$1"
    config=$servers/$1/bin/pg_config
    find "$servers/$1" -name 'otp_gateway*' -delete
}

as_postgres() {
    local user="setpriv --reuid postgres --regid postgres --clear-groups"
    (cd "$scratch" && LD_LIBRARY_PATH=$("$config" --libdir) $user "$@")
}

flow() { # flow SETTING...: a cluster of that server, the flow, and it is gone
    local data=$scratch/data sockets=$scratch/sockets setting bin trouble=
    bin=$("$config" --bindir)
    rm -rf "$data" "$sockets"
    install -d -o postgres "$data" "$sockets"
    as_postgres "$bin/initdb" -D "$data" -A trust -E UTF8 --no-locale -N >/dev/null
    printf '%s\n' "shared_preload_libraries = 'otp_gateway'" "listen_addresses = ''" \
        "unix_socket_directories = '$sockets'" "$@" >>"$data/postgresql.conf"
    as_postgres "$bin/pg_ctl" -D "$data" -w -s -l "$data/log" start || { cat "$data/log" >&2; exit 1; }
    as_postgres "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -h "$sockets" -f - postgres <packaging/flow.sql || trouble=yes
    as_postgres "$bin/pg_ctl" -D "$data" -w -s -m fast stop
    [ -z "$trouble" ] || { cat "$data/log" >&2; exit 1; }
}

archive() {
    local name
    make_for 16
    server 16
    name=otp_gateway-$version-pg16-$(uname -m)-linux-gnu
    tar -xzf "$made/$name.tar.gz" -C "$scratch"
    cp "$scratch/$name/lib"/* "$("$config" --pkglibdir)/"
    cp "$scratch/$name/share/extension"/* "$("$config" --sharedir)/extension/"
    flow
    # What CloudNativePG mounts, and the two settings that it makes of it; nothing is in the server's own folders.
    make_for 18
    server 18
    name=otp_gateway-$version-pg18-$(uname -m)-linux-gnu
    mkdir -p "$scratch/extensions/otp-gateway"
    tar -xzf "$made/$name.tar.gz" -C "$scratch/extensions/otp-gateway" --strip-components=1
    flow "extension_control_path = '\$system:$scratch/extensions/otp-gateway/share'" \
        "dynamic_library_path = '\$libdir:$scratch/extensions/otp-gateway/lib'"
}

pgxn() {
    local target
    "$tools/bin/pgxn_meta" META.json
    packaging/dist.sh --into "$made"
    server 14
    # With what `make build` has compiled already.
    target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    env -u SOURCE_DATE_EPOCH CARGO_TARGET_DIR="$target" "$tools/venv/bin/pgxnclient" install --yes \
        --pg_config "$config" "$made/otp_gateway-$version.zip" >"$scratch/pgxn.log" 2>&1 ||
        { cat "$scratch/pgxn.log" >&2; exit 1; }
    flow
}

[ $# -gt 0 ] || set -- twice bookworm trixie sid image archive pgxn
done=()
for part; do
    began=$SECONDS
    printf '\n   -- %s\n' "$part"
    case $part in
    bookworm | trixie | sid) debian "$part" ;;
    twice | image | archive | pgxn) "$part" ;;
    *) sed -n '6,13p' "$0" >&2; exit 2 ;;
    esac
    done+=("$(printf '%-10s held, %4d s' "$part" $((SECONDS - began)))")
done
printf '\n'
printf '   %s\n' "${done[@]}"
echo "${#done[@]} passed, 0 failed"
