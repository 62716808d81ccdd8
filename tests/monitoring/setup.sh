#!/usr/bin/env bash
# setup.sh PLACE   puts what the monitoring is tested with into the directory PLACE, and nothing onto the system: Prometheus
# and postgres_exporter, out of Debian's packages; a Python with what requirements.txt names, which makes the dashboards
# and the pictures. Does nothing where everything is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
place=$(cd "$1" && pwd)
packages=(prometheus prometheus-postgres-exporter)
if ! [ -x "$place/usr/bin/promtool" ] || ! [ -x "$place/usr/bin/prometheus-postgres-exporter" ]; then
    echo "   taking ${packages[*]} out of Debian's packages"
    got=$(mktemp -d)
    trap 'rm -rf "$got"' EXIT
    chmod 777 "$got"
    cd "$got"
    apt-get download -q "${packages[@]}" >/dev/null 2>&1 || {
        sudo=""
        [ "$(id -u)" = 0 ] || sudo=sudo
        $sudo apt-get update -q >/dev/null
        apt-get download -q "${packages[@]}" >/dev/null
    }
    for package in ./*.deb; do dpkg -x "$package" "$place"; done
fi
if ! cmp -s "$here/requirements.txt" "$place/python/requirements.txt"; then
    echo "   installing tests/monitoring/requirements.txt"
    # With Debian's psycopg2 and pytest.
    /usr/bin/python3 -m venv --clear --system-site-packages "$place/python"
    "$place/python/bin/pip" install -q --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$place/python/"
fi
