#!/usr/bin/env bash
# Measures DownStream beside InspIRCd 3, ngIRCd and a bare mio + rustls fan-out server, over TLS on
# loopback, and prints a table; every figure goes to target/bench.json. Ends by itself within ten minutes
# on two cores (the build not counted).
#
#   scripts/bench.sh            five interleaved runs of everything
#   scripts/bench.sh --quick    one short run, to see that it works
#   scripts/bench.sh --scaling  how cost grows instead, to target/scaling.json; scripts/plot.sh draws it
#   scripts/bench.sh OPTION…    as `cargo bench --bench load -- --help` says
#   scripts/bench.sh --check    counts the instructions of fixed works under Callgrind instead and compares them
#                               with benches/instructions.toml; fails where one is worse
#   scripts/bench.sh --check --update    writes them there; further options as
#                               `cargo bench --bench instructions -- --help` says
#
# On Debian and Ubuntu the two IRC servers are installed where they are missing; without them the rest is
# measured. Only processes started here are ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# install PACKAGE…: without starting their services (RUNLEVEL=1, see invoke-rc.d(8)).
install() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "note: not installed, and no apt-get to do it with: $*" >&2
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

if [ "${1:-}" = --check ]; then
    shift
    command -v valgrind >/dev/null || install valgrind
    exec cargo bench --quiet --locked --bench instructions -- "$@"
fi

missing=()
for server in inspircd ngircd; do
    [ -x "/usr/sbin/$server" ] || missing+=("$server")
done
if [ ${#missing[@]} -gt 0 ]; then
    install "${missing[@]}"
fi
# Four thousand clients and their server, each with a descriptor.
ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
cargo bench --locked --bench load --no-run
json=$PWD/target/bench.json
if [[ " $* " == *" --scaling "* ]]; then
    json=$PWD/target/scaling.json
fi
exec timeout --kill-after=10 600 cargo bench --quiet --locked --bench load -- --json "$json" "$@"
