#!/usr/bin/env bash
# Python is written as ruff writes it, in lines of 120. `tests/ruff.sh write` has it write.
set -euo pipefail
cd "$(dirname "$0")/.."
place="$(realpath -m "${CARGO_TARGET_DIR:-target}")/ruff-0.17.6"
if [ ! -x "$place/bin/ruff" ]; then
    /usr/bin/python3 -m venv --clear "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps ruff==0.17.6
fi
case ${1:-} in
write) "$place/bin/ruff" format --quiet ;;
"") "$place/bin/ruff" format --quiet --check || { echo "   tests/ruff.sh write formats it" >&2; exit 1; } ;;
*) echo "usage: tests/ruff.sh [write]" >&2; exit 1 ;;
esac
