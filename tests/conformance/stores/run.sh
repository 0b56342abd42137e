#!/bin/sh
# Runs store clients that are not ours against the simulator, unchanged but for the address: Google's own Python client
# and codemagic-cli-tools. Exits with 1 on any difference, and where something that this needs is missing.
#
#   tests/conformance/stores/run.sh
#
# Needs cargo, Python 3.11 or newer with venv (Debian: python3-venv), and PyPI. The stores' descriptions are read from
# ../shared/specs (STATUSLEDGER_SHARED names another directory than ../shared).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
shared=${STATUSLEDGER_SHARED:-$root/../shared}
python=${PYTHON:-python3}

fail() {
    echo "conformance: $1" >&2
    exit 1
}

[ -d "$shared/specs" ] || fail "the stores' descriptions are not in $shared/specs"
command -v "$python" >/dev/null || fail "$python is not installed"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

"$python" -m venv "$work/venv" || fail "no virtual environment can be made (Debian: apt-get install python3-venv)"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
    fail "the clients cannot be installed"

cd "$root"
cargo build --quiet -p statusledger-simulator --bin statusledger-simulator || fail "the simulator cannot be built"
target=$(cargo metadata --format-version 1 --no-deps |
    "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

"$work/venv/bin/python" "$here/clients.py" "$target/debug/statusledger-simulator" "$shared/specs" "$work" ||
    fail "the simulator is not what these clients expect"
