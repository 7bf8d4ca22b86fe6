#!/usr/bin/env bash
# The dependencies: licences, sources, duplicates and, with a network, known vulnerabilities (deny.toml).
# Not part of scripts/test.sh, since an advisory published today must not fail yesterday's change.
#
#   scripts/audit.sh             everything
#   scripts/audit.sh --offline   without the advisories
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    cargo install --locked cargo-deny
fi

case "${1:-}" in
    --offline) cargo deny --offline --all-features check bans licenses sources ;;
    "") cargo deny --all-features check advisories bans licenses sources ;;
    *)
        echo "usage: $0 [--offline]" >&2
        exit 2
        ;;
esac
