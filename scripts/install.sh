#!/bin/sh
# Puts binaries, systemd units, documents and a first configuration in place.
#
#   cargo build --release && sudo scripts/install.sh
#
# DESTDIR   a directory that stands for / (for packages); empty by default
# PREFIX    where programs go; /usr/local by default
# BINDIR    where the built binaries are; target/release by default
#
# Never touches a configuration that is there, and starts nothing.
set -eu

cd "$(dirname "$0")/.."
destdir=${DESTDIR:-}
prefix=${PREFIX:-/usr/local}
built=${BINDIR:-${CARGO_TARGET_DIR:-target}/release}

case $prefix in
    /*) ;;
    *) echo "install.sh: PREFIX must be an absolute path, not $prefix" >&2; exit 2 ;;
esac
case $prefix in
    *[!A-Za-z0-9/._+-]*) echo "install.sh: PREFIX may have A-Z a-z 0-9 / . _ + - in it only" >&2; exit 2 ;;
esac
if [ ! -x "$built/downstream" ]; then
    echo "install.sh: $built/downstream is not there; run: cargo build --release" >&2
    exit 1
fi

bin=$destdir$prefix/bin
units=$destdir$prefix/lib/systemd/system
doc=$destdir$prefix/share/doc/downstream
etc=$destdir/etc/downstream

install -d -m 755 "$bin" "$units" "$doc" "$etc"
for name in downstream dsc; do
    if [ -x "$built/$name" ]; then
        # A new file in place of the old one: a running daemon keeps its own.
        install -m 755 "$built/$name" "$bin/$name.new"
        mv -f "$bin/$name.new" "$bin/$name"
    fi
done
for unit in downstream.service downstream.socket; do
    sed "s|/usr/local/|$prefix/|g" "scripts/systemd/$unit" > "$units/$unit.new"
    chmod 644 "$units/$unit.new"
    mv -f "$units/$unit.new" "$units/$unit"
done
for text in README.md docs/operating.md docs/protocol.md downstream.example.toml; do
    if [ -f "$text" ]; then
        install -m 644 "$text" "$doc/"
    fi
done

config=$etc/downstream.toml
if [ -e "$config" ] || [ -L "$config" ]; then
    echo "kept $config; compare it with $prefix/share/doc/downstream/downstream.example.toml"
else
    # An absolute path, so that `downstream user add …` finds the database from anywhere.
    sed 's|^data = .*|data = "/var/lib/downstream/data"|' downstream.example.toml > "$config.new"
    chmod 644 "$config.new"
    mv "$config.new" "$config"
    echo "wrote $config; it listens on this machine only: change listen and registration to your needs"
fi

if [ -z "$destdir" ]; then
    cat <<END
next:
  systemctl daemon-reload
  systemctl enable --now downstream
  downstream --config /etc/downstream/downstream.toml invite
END
fi
