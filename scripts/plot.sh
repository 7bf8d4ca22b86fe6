#!/usr/bin/env bash
# Draws how cost grows, from what `scripts/bench.sh --scaling` has measured: one SVG a series into docs/plots.
#
#   scripts/plot.sh [JSON [DIRECTORY]]    by default target/scaling.json and docs/plots
#
# Needs jq and gnuplot (Debian: gnuplot-nox), which are installed where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

json=${1:-target/scaling.json}
out=${2:-docs/plots}

missing=()
command -v jq >/dev/null || missing+=(jq)
command -v gnuplot >/dev/null || missing+=(gnuplot-nox)
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
mkdir -p "$out"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

# plot SERIES FIGURE "X AXIS" "Y AXIS" [GNUPLOT COMMAND]
plot() {
    local series=$1 figure=$2 x=$3 y=$4 more=${5:-} lines=() style=1
    for server in downstream bare inspircd; do
        jq -r --arg series "$series:" --arg figure "$figure" --arg server "$server" '
            .rows[] | select(.server == $server and (.work | startswith($series)) and .figures[$figure] != null)
            | "\(.work | ltrimstr($series)) \(.figures[$figure].median)"' "$json" >"$data/$series.$server"
        if [ -s "$data/$series.$server" ]; then
            lines+=("'$data/$series.$server' with linespoints linestyle $style title '$server'")
        fi
        style=$((style + 1))
    done
    if [ ${#lines[@]} -eq 0 ]; then
        echo "note: nothing measured of $series" >&2
        return
    fi
    # `name` keeps the file the same from run to run.
    gnuplot <<EOF
set terminal svg size 640,360 font "sans-serif,13" background "white" name "$series"
set output "$out/$series.svg"
set style line 1 linecolor rgb "#0b6e99" linewidth 2.5 pointtype 7 pointsize 0.6
set style line 2 linecolor rgb "#888888" linewidth 2 pointtype 7 pointsize 0.5
set style line 3 linecolor rgb "#c8553d" linewidth 2 pointtype 7 pointsize 0.5
set border 3 linecolor rgb "#444444"
set tics nomirror out
set grid ytics linecolor rgb "#dddddd"
set key top right
set xlabel "$x"
set ylabel "$y"
set yrange [0:*]
$more
plot $(IFS=,; echo "${lines[*]}")
EOF
    echo "$out/$series.svg"
}

plot members "CPU us a delivery" "members of the room" "server CPU a delivery, µs" "set logscale x"
plot rooms "CPU us a delivery" "rooms of 10" "server CPU a delivery, µs"
plot connections "CPU us a delivery" "idle sessions beside a room of 10" "server CPU a delivery, µs"
plot history "CPU us a page" "messages in the log" "server CPU for the newest page of 100, µs" "set logscale x"
plot size "CPU us a MiB" "size of the upload, MiB" "server CPU a MiB, µs" "set logscale x 2"
