#!/bin/sh
# Runs Schemathesis over the OpenAPI document of a running node: no 5xx, no answer that the document does not describe.
# Exits with 1 on any difference, and where something that this needs is missing.
#
#   tests/api/run.sh [seed]
#
# Needs cargo, Python 3.11 or newer with venv (Debian: python3-venv), PyPI, and Postgres (see docs/operations.md). The seed
# is fixed unless one is given; the time is bounded (tests/api/conformance.py).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}

fail() {
    echo "api: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python is not installed"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# The account that runs Postgres has to get through.
chmod 711 "$work"

"$python" -m venv "$work/venv" || fail "no virtual environment can be made (Debian: apt-get install python3-venv)"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
    fail "schemathesis cannot be installed"

cd "$root"
program=${STATUSLEDGER:-}
if [ -z "$program" ]; then
    SQLX_OFFLINE=true cargo build --quiet --bin statusledger || fail "the program cannot be built"
    program=$(cargo metadata --format-version 1 --no-deps |
        "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/statusledger
fi

"$work/venv/bin/python" "$here/conformance.py" "$program" "$work" "${1:-20260301}" ||
    fail "the API is not what its document says"
