#!/usr/bin/env bash
# Everything that must hold before a change goes in. Works on a fresh Debian or Ubuntu machine that has
# git, a Rust toolchain (rustup or a package) and apt: what else is missing is installed first.
#
#   scripts/test.sh           all steps
#   scripts/test.sh NAME…     only the steps of these names (packages format clippy test features docs systemd)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-always}"

step() {
    local name=$1
    shift
    if [ ${#WANTED[@]} -gt 0 ] && [[ " ${WANTED[*]} " != *" $name "* ]]; then
        return
    fi
    printf '\n=== %s\n' "$name"
    local begun=$SECONDS
    "$@"
    printf -- '--- %s: %d s\n' "$name" $((SECONDS - begun))
}

# A C compiler for SQLite and AWS-LC (which needs no CMake on x86-64 and 64-bit ARM); the two TLS clients
# that the tests type into; strace, which kills dsc at every write and breaks the daemon's disk; libfaketime,
# which sets its clock; Python and jq, which use dsc as programs do. systemd-analyze for the unit's own tests is
# there wherever it can run.
packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v ncat >/dev/null || missing+=(ncat)
    command -v strace >/dev/null || missing+=(strace)
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || missing+=(libfaketime)
    command -v python3 >/dev/null || missing+=(python3)
    command -v jq >/dev/null || missing+=(jq)
    case "$(uname -m)" in
        x86_64 | aarch64) ;;
        *) command -v cmake >/dev/null || missing+=(cmake) ;;
    esac
    if [ ${#missing[@]} -eq 0 ]; then
        echo "nothing is missing"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        echo "error: please install: ${missing[*]}" >&2
        return 1
    fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# rustfmt and clippy come with rustup's default profile, but not with its minimal one.
components() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        rustup component add rustfmt clippy
    fi
}

format() {
    components
    cargo fmt --check
    rustfmt --check --edition 2024 tests/fuzz/bodies.rs tests/fuzz/fuzz_targets/*.rs
}

clippy() {
    components
    cargo clippy --locked --all-targets -- --deny warnings
}

# The daemon's tests open a few thousand connections.
test_all() {
    ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
    cargo test --locked
}

# Each feature alone, and none: the wire must build for a client without the server.
features() {
    cargo clippy --locked --no-default-features --lib -- --deny warnings
    cargo clippy --locked --no-default-features --features daemon -- --deny warnings
    cargo clippy --locked --no-default-features --features client -- --deny warnings
}

docs() {
    RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps
}

WANTED=("$@")
step packages packages
step format format
step clippy clippy
step test test_all
step features features
step docs docs
step systemd scripts/check-systemd.sh
printf '\nall is well\n'
