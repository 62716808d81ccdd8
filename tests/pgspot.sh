#!/usr/bin/env bash
# Promise: an install or upgrade script resolves no name and no operator to what somebody else has put in its way.
# Checked by pgspot over the scripts as CREATE EXTENSION runs them, one after the other. Every finding must be listed
# here with the reason why it stands; one that is no longer found must go.
set -euo pipefail
cd "$(dirname "$0")/.."
place="$(realpath -m "${CARGO_TARGET_DIR:-target}")/pgspot-0.9.4"
pgspot="$place/bin/pgspot"
if [ ! -x "$pgspot" ]; then
    /usr/bin/python3 -m venv --clear "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps pgspot==0.9.4 pglast==7.21
fi
# All that it says but headings and sums: a script that it cannot read is a finding, too. It cannot read BEGIN ATOMIC,
# and is shown such a body as a text.
read=$(mktemp -d)
findings() {
    local script copies=()
    for script in "$@"; do
        sed -e 's/^BEGIN ATOMIC$/AS $$/; s/^END;$/$$;/' "$script" >"$read/${script##*/}"
        copies+=("$read/${script##*/}")
    done
    { "$pgspot" --append "${copies[@]}" || true; } | grep -vE '^$|^[^ ]+\.sql: $|^(TOTAL:)? ?Errors: '
}

# A script that must be found fault with: without that, silence says nothing.
bad=$(mktemp)
trap 'rm -rf "$bad" "$read"' EXIT
cat >"$bad" <<'SQL'
CREATE FUNCTION public.careless() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT 1 = 1';
SQL
[ "$(findings "$bad" | grep -Eo '^PS00[13]' | sort -u | xargs)" = "PS001 PS003" ] || { echo "   pgspot finds nothing in a bad script" >&2; exit 1; }

# value IN (...) of a domain is text = text, which pg_catalog has; it comes first, and nothing fits better.
domains="PS001: Unqualified operator: '=' in value IN ("

# A body of BEGIN ATOMIC is bound when it is made, by names that are checked all the same: no path has a say in it
# later.
bound="PS005: Function without explicit search_path: otp_gateway"

check() {
    local found rest
    found=$(findings "$@")
    rest=$(grep -vF -e "$domains" -e "$bound" <<<"$found" || true)
    if [ -n "$rest" ] || [ "$(grep -cF "$domains" <<<"$found")" != 3 ] || [ "$(grep -cF "$bound" <<<"$found")" != "$(cat "$@" | grep -c '^BEGIN ATOMIC$')" ]; then
        printf '   pgspot finds other than what this script has the reasons for:\n%s\n' "$found" >&2
        exit 1
    fi
    echo "   pgspot: ${!#}: $(wc -l <<<"$found") findings, each with its reason in tests/pgspot.sh"
}
# The oldest version and all that lead on from it; and the present one as it is installed.
check sql/install/otp_gateway--0.1.0.sql $(printf '%s\n' sql/upgrade/*.sql | sort -V)
check "$(printf '%s\n' sql/install/*.sql | sort -V | tail -n 1)"
