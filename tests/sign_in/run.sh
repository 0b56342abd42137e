#!/bin/sh
# Sign-in against what is not ours: npm's oidc-provider, and passkeys in a Chromium with virtual authenticators.
# Exits with 1 on any difference, and where something that this needs is missing.
#
#   tests/sign_in/run.sh
#
# Needs cargo, Node 20 or newer with npm and its registry, and Chromium (Debian: chromium; CHROMIUM names another).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

fail() {
    echo "sign-in: $1" >&2
    exit 1
}

command -v npm >/dev/null || fail "npm is not installed"
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || fail "Chromium is not installed (Debian: apt-get install chromium)"
(cd "$here" && npm ci --ignore-scripts --no-audit --no-fund --silent) || fail "the OpenID provider cannot be installed"

cd "$root"
STATUSLEDGER_SIGN_IN_REQUIRED=1 cargo test --quiet --workspace --test main -- sign_in:: ||
    fail "not as it should be at the OpenID provider"

# The tests have built it.
program=$(cargo metadata --format-version 1 --no-deps |
    node -e 'process.stdout.write(JSON.parse(require("fs").readFileSync(0)).target_directory)')/debug/statusledger
work=$(mktemp -d /tmp/statusledger-sign-in.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# As root the database child runs as another account, which has to reach its directory.
chmod 711 "$work"
node "$here/browser.mjs" "$program" "$work" || fail "not as it should be in the browser"
