#!/bin/sh
# Checks the systemd units: an installed tree verifies cleanly, and the sandbox is rated 2.0 or better.
# Also checks install.sh itself: the tree is complete and a configuration is never overwritten.
set -eu

cd "$(dirname "$0")/.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

fail() {
    echo "check-systemd: $1" >&2
    exit 1
}

# The checks are about the tree and not about the program, so that any program stands for it.
mkdir "$root/built"
printf '#!/bin/sh\n' > "$root/built/downstream"
chmod 755 "$root/built/downstream"

tree=$root/tree
DESTDIR=$tree BINDIR=$root/built scripts/install.sh > /dev/null
for file in usr/local/bin/downstream usr/local/lib/systemd/system/downstream.service \
    usr/local/lib/systemd/system/downstream.socket etc/downstream/downstream.toml; do
    [ -f "$tree/$file" ] || fail "install.sh did not install $file"
done
grep -q '^data = "/var/lib/downstream/data"$' "$tree/etc/downstream/downstream.toml" || fail "the data path is not absolute"
echo '# mine' > "$tree/etc/downstream/downstream.toml"
DESTDIR=$tree BINDIR=$root/built PREFIX=/opt/ds scripts/install.sh > /dev/null
[ "$(cat "$tree/etc/downstream/downstream.toml")" = '# mine' ] || fail "install.sh overwrote a configuration"
grep -q '^ExecStart=/opt/ds/bin/downstream ' "$tree/opt/ds/lib/systemd/system/downstream.service" || fail "PREFIX does not reach the unit"

if ! command -v systemd-analyze > /dev/null; then
    echo "check-systemd: skipped the units: systemd-analyze is not installed"
    exit 0
fi

# verify wants the programs of the unit, and the targets that it names, below the root.
mkdir -p "$tree/bin" "$tree/usr/lib/systemd"
cp "$root/built/downstream" "$tree/bin/kill"
for system in /usr/lib/systemd/system /lib/systemd/system; do
    if [ -d "$system" ]; then
        cp -RL "$system" "$tree/usr/lib/systemd/" 2> /dev/null || true
        break
    fi
done
said=$(systemd-analyze verify --man=no --root="$tree" downstream.service downstream.socket 2>&1 | grep -i 'downstream' || true)
[ -z "$said" ] || fail "systemd-analyze verify: $said"

# --threshold counts in tenths.
systemd-analyze security --offline=yes --threshold=20 --no-pager "$tree/usr/local/lib/systemd/system/downstream.service" > "$root/rating" \
    || { cat "$root/rating" >&2; fail "the sandbox is rated worse than 2.0"; }
grep 'Overall exposure level' "$root/rating"
