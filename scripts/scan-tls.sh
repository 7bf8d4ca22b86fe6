#!/usr/bin/env bash
# Looks at the daemon's TLS with sslscan and testssl.sh, under a certificate of an authority made for it, and
# fails where testssl.sh has a finding above informational. Takes about three minutes; the reports stay in
# target/tls-scan.
#
# Installs both from Debian where they are missing. Only the daemon started here is ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What is no finding about the daemon: who may issue for a name is said in its DNS, which 127.0.0.1 has none of;
# and old ciphers that Debian's OpenSSL no longer has for testssl.sh to try (it tries them by itself).
NOT_OURS='["DNS_CAArecord", "engine_problem"]'

missing=()
for package in sslscan testssl.sh jq openssl; do
    command -v "${package%.sh}" >/dev/null || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

cargo build --locked --bin downstream
out=$PWD/target/tls-scan
rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
daemon=
finish() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# An authority and a certificate as public ones are: short-lived, and with a place where its end would be told.
(
    cd "$work"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj '/CN=Scan CA' \
        -keyout ca-key.pem -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=localhost' -keyout key.pem -out csr.pem
    printf '%s\n' subjectAltName=DNS:localhost,IP:127.0.0.1 extendedKeyUsage=serverAuth keyUsage=digitalSignature \
        basicConstraints=CA:FALSE crlDistributionPoints=URI:http://crl.invalid/ca.crl >ext
    openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 90 -extfile ext -out cert.pem
    printf '[tls]\ncert = "%s"\nkey = "%s"\n' "$work/cert.pem" "$work/key.pem" >downstream.toml
) 2>"$out/openssl.log"

target/debug/downstream --config "$work/downstream.toml" --data "$work/data" --listen 127.0.0.1:0 \
    >"$work/said" 2>"$out/daemon.log" &
daemon=$!
for _ in $(seq 100); do
    address=$(sed -n 's/^listening on //p' "$work/said")
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { cat "$out/daemon.log" >&2; exit 1; }

sslscan --no-colour "$address" >"$out/sslscan.txt"
sed -n '/Protocols:/,/Key Exchange/p' "$out/sslscan.txt"
testssl --color 0 --warnings off --add-ca "$work/ca.pem" --jsonfile "$out/testssl.json" "$address" \
    >"$out/testssl.txt" || true # its exit code counts findings in its own way

count=$(jq length "$out/testssl.json")
# A scan that broke off says nothing about the daemon.
[ "$count" -gt 80 ] || { echo "error: testssl.sh looked at $count things only: $out/testssl.txt" >&2; exit 1; }
findings=$(jq -r --argjson not_ours "$NOT_OURS" '.[] | select(.id as $id | $not_ours | index($id) | not)
    | select(.severity as $s | ["OK", "INFO", "DEBUG"] | index($s) | not) | "\(.severity) \(.id): \(.finding)"' "$out/testssl.json")
if [ -n "$findings" ]; then
    printf 'findings:\n%s\n' "$findings"
    exit 1
fi
echo "testssl.sh looked at $count things: no finding above informational; the reports are in target/tls-scan"
