#!/usr/bin/env bash
# Runs the fuzz targets one after the other, each until it has used so many minutes of a processor.
#
#   scripts/fuzz.sh [MINUTES [TARGET…]]     ten minutes for each target of tests/fuzz
#
# Needs `cargo install cargo-fuzz`. What is new goes to target/corpus/TARGET, so that the next run goes on from
# there; what fails, to target/findings. Fails where anything was found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:-10}
[[ $minutes =~ ^[1-9][0-9]{0,3}$ ]] || { echo "usage: scripts/fuzz.sh [MINUTES [TARGET…]]" >&2; exit 2; }
targets=("${@:2}")
if [ ${#targets[@]} -eq 0 ]; then
    for file in tests/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# No sanitizer: there is no unsafe code of ours to watch, and only that would need a nightly compiler. Debug
# assertions are on.
if [ ${#targets[@]} -eq 1 ]; then
    cargo fuzz build --fuzz-dir tests/fuzz -s none "${targets[0]}"
else
    cargo fuzz build --fuzz-dir tests/fuzz -s none
fi
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/findings
found=0
for target in "${targets[@]}"; do
    corpus=target/corpus/$target
    log=target/findings/$target.log
    mkdir -p "$corpus"
    # The kernel ends it when its time is used, by SIGXCPU; until then only a finding does.
    code=0
    (
        ulimit -c 0
        ulimit -S -t $((minutes * 60))
        exec nice "tests/fuzz/target/$host/release/$target" -artifact_prefix="target/findings/$target-" \
            "$corpus" "tests/fuzz/corpus/$target" >"$log" 2>&1
    ) || code=$?
    if [ "$code" -eq $((128 + $(kill -l XCPU))) ]; then
        printf '%-18s %s\n' "$target" "$(grep -a '^#[0-9]' "$log" | tail -n 1 | awk '{print substr($1, 2), "runs,", $3, $4, $5, $6}')"
    else
        found=1
        printf '%-18s ended with %d: see %s\n' "$target" "$code" "$log"
    fi
done
exit $found
