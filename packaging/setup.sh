#!/usr/bin/env bash
# setup.sh TOOLS   installs what test.sh needs on a Debian machine: debootstrap and lintian as Debian's packages, and in
# the directory TOOLS PGXN's validator and client. Does nothing where everything is there.
set -euo pipefail
tools=$1
PATH=$HOME/.cargo/bin:$PATH
missing=()
for package in debootstrap lintian; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "   installing Debian packages: ${missing[*]}"
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ ! -x "$tools/bin/pgxn_meta" ]; then
    echo "   building pgxn_meta, which knows what META.json may say"
    cargo install -q --locked --root "$tools" --target-dir "$tools/target" pgxn_meta@0.7.0
    rm -rf "$tools/target"
fi
if [ ! -x "$tools/venv/bin/pgxnclient" ]; then
    echo "   installing pgxnclient, which installs from PGXN's archives"
    /usr/bin/python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install -q --disable-pip-version-check pgxnclient==1.3.2
fi
