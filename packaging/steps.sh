# steps.sh MAJOR PREVIOUS VERSION ARCHITECTURE   what an administrator does with the packages, in a Debian that is
# thrown away afterwards; test.sh runs it there. /test has the packages, and what is beside this file.
set -euo pipefail
major=$1 previous=$2 version=$3 architecture=$4
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
package=postgresql-$major-otp-gateway

say() { echo "   $*"; }
fail() { echo "   steps.sh: $*" >&2; exit 1; }
apt_get() { apt-get -y -q "$@" >/tmp/apt.log 2>&1 || { tail -n 30 /tmp/apt.log >&2; exit 1; }; }
sql() { # sql DATABASE SQL
    su postgres -c 'PGOPTIONS="-c client_min_messages=warning" psql -XAtq -v ON_ERROR_STOP=1 -f - "$0"' "$1" <<<"$2"
}
flow() { su postgres -c 'psql -XAtq -v ON_ERROR_STOP=1 -f /test/flow.sql "$0"' "$1" || fail "the flow failed in $1"; }
pid() { head -n 1 "/var/lib/postgresql/$major/main/postmaster.pid"; }
same_server() { [ "$(pid)" = "$running" ] && [ "$(sql postgres 'SELECT 1')" = 1 ] || fail "$1 restarted the server"; }

apt_get update
apt_get install --no-install-recommends "/test/${package}_$previous-1_$architecture.deb"
[ -e "/etc/postgresql/$major/main" ] || pg_createcluster "$major" main >/dev/null
pg_ctlcluster "$major" main start
[ -z "$(sql postgres 'SHOW shared_preload_libraries')" ] || fail "the package has set the preload"
pg_conftool "$major" main set shared_preload_libraries otp_gateway
pg_ctlcluster "$major" main restart
sql postgres "CREATE DATABASE customers"
flow customers
id=$(sql customers "SELECT verification_id FROM otp_send('sandbox', '{\"mobile\": \"+94770000003\"}')")
say "$previous is installed beside Debian's $(sql postgres 'SHOW server_version'), and works"

running=$(pid)
apt_get install "/test/${package}_$version-1_$architecture.deb"
same_server "the upgrade of the package"
[ "$(sql customers "SELECT outcome FROM otp_send('sandbox', '{\"mobile\": \"+94770000004\"}')")" = sent ] ||
    fail "calls do not go on between the upgrade of the package and the restart"
if sql customers "ALTER EXTENSION otp_gateway UPDATE" 2>/tmp/refused; then
    fail "ALTER EXTENSION UPDATE before the restart was not refused"
fi
grep -q 'Restart the server first' /tmp/refused || fail "ALTER EXTENSION before the restart says: $(cat /tmp/refused)"
pg_ctlcluster "$major" main restart
sql customers "ALTER EXTENSION otp_gateway UPDATE"
[ "$(sql customers "SELECT outcome FROM otp_verify('$id', '000000')")" = approved ] ||
    fail "what $previous sent cannot be verified"
sql customers "DROP SERVER sandbox CASCADE"
flow customers
[ "$(sql customers "SELECT extversion FROM pg_extension WHERE extname = 'otp_gateway'")" = "$version" ] ||
    fail "customers is not of $version"
say "upgraded to $version: the server ran on until its restart, and what was sent before it was verified after it"

running=$(pid)
flow postgres
apt_get remove "$package"
same_server "the removal of the package"
apt_get install "/test/${package}_$version-1_$architecture.deb"
same_server "the installation of the package"
for database in postgres customers; do sql "$database" "DROP EXTENSION otp_gateway CASCADE"; done
pg_conftool "$major" main remove shared_preload_libraries
pg_ctlcluster "$major" main restart
apt_get purge "$package"
pg_ctlcluster "$major" main restart
[ "$(sql postgres 'SELECT 1')" = 1 ] || fail "the server does not run without the package"
left=$(find / -xdev \( -path /proc -o -path /test -o -path /var/cache/apt -o -path /var/lib/postgresql \) -prune -o \
    -name '*otp[_-]gateway*' -print)
[ -z "$left" ] || fail "left behind: $left"
say "removed: the server ran on; purged: nothing is left but the key file in the data directory"
pg_ctlcluster "$major" main stop
