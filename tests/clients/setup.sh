#!/usr/bin/env bash
# setup.sh PLACE   installs what test_clients.py and the examples run: Node, Java with pgjdbc, Spring and Hibernate, PHP,
# Ruby, pgTAP, pg_cron and Chromium as Debian's packages, unless they are there; in PLACE the clients of Python, Node and
# Rust and the formatters, whose versions are pinned here, and Debian's pgpool, which as a package would run at each
# start of the machine. Does nothing where everything is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
place=$1
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
missing=()
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v javac >/dev/null || missing+=(default-jdk-headless)
[ -e /usr/share/java/postgresql.jar ] || missing+=(libpostgresql-jdbc-java)
spring=(libhibernate3-java libhikaricp-java libjavassist-java libspring-context-java libspring-jdbc-java libspring-orm-java
    libspring-test-java junit4)
for package in "${spring[@]}" php-cli php-pgsql ruby ruby-pg; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
command -v chromedriver >/dev/null || missing+=(chromium chromium-driver)
# Of the Postgres that PG_CONFIG names, where that is Debian's. pg_cron does nothing where it is not preloaded.
libraries=$("${PG_CONFIG:-pg_config}" --pkglibdir 2>/dev/null || true)
if [[ $libraries =~ ^/usr/lib/postgresql/([0-9]+)/lib$ ]] && [ ! -e "/usr/share/postgresql/${BASH_REMATCH[1]}/extension/pgtap.control" ]; then
    missing+=("postgresql-${BASH_REMATCH[1]}-pgtap")
fi
if [[ $libraries =~ ^/usr/lib/postgresql/([0-9]+)/lib$ ]] && [ ! -e "$libraries/pg_cron.so" ]; then
    missing+=("postgresql-${BASH_REMATCH[1]}-cron")
fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "   installing Debian packages: ${missing[*]}"
    $sudo apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi
mkdir -p "$place"
place=$(cd "$place" && pwd)
if [ ! -x "$place/pgpool/usr/sbin/pgpool" ]; then
    echo "   unpacking Debian's pgpool2 into $place/pgpool"
    mkdir -p "$place/pgpool"
    cd "$place/pgpool"
    apt-get download -qq pgpool2 2>/dev/null || { $sudo apt-get update -q >/dev/null; apt-get download -qq pgpool2; }
    # What it is linked with, and no more of what it depends on.
    mapfile -t linked < <(dpkg-deb -f pgpool2_*.deb Depends | grep -oE '\blib[a-z0-9+.-]+')
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${linked[@]}" >/dev/null
    dpkg -x pgpool2_*.deb .
    rm pgpool2_*.deb
    cd - >/dev/null
fi

python() { # python NAME REQUIREMENTS: a Python of that name, with these
    ! cmp -s "$2" "$place/$1/requirements.txt" || return 0
    echo "   installing $2 into $place/$1"
    /usr/bin/python3 -m venv --clear "$place/$1"
    "$place/$1/bin/pip" install -q --disable-pip-version-check --no-deps -r "$2"
    cp "$2" "$place/$1/"
}
python python "$here/requirements.txt"
python fastapi "$here/../../examples/fastapi/requirements.txt"
python django "$here/../../examples/django/requirements.txt"

node() { # node NAME FOLDER: what that folder's package-lock.json names
    ! cmp -s "$2/package-lock.json" "$place/$1/installed.json" || return 0
    echo "   installing what $2/package-lock.json names into $place/$1"
    mkdir -p "$place/$1"
    cp "$2/package.json" "$2/package-lock.json" "$place/$1/"
    npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$place/$1"
    cp "$2/package-lock.json" "$place/$1/installed.json"
}
node node "$here"
node sign-in "$here/../../examples/node"

PATH="$HOME/.cargo/bin:$PATH"
cargo build -q --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$place/rust"
