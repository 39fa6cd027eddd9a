#!/bin/sh
# Installs Marline on this machine: binaries, systemd units, sysctls, completions
# and man pages. May be run again at any time; never touches settings or keys.
#
#   ./install.sh server            install the server
#   ./install.sh client            install the client
#   ./install.sh both              install both
#
# Binaries come from beside this script (a release archive), else from the
# source tree's target/release, else they are built there with cargo.
#
#   PREFIX=/usr/local   where binaries, completions and man pages go
#   DESTDIR=            puts everything below a directory, for packagers; nothing is started
set -eu

here=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "$2"
}

case "${1:-}" in
server) programs="marline-server" ;;
client) programs="marline" ;;
both) programs="marline-server marline" ;;
*) die 'say what to install: "server", "client" or "both"' 2 ;;
esac

if [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    die 'root is needed: run "sudo ./install.sh '"$1"'", or set DESTDIR' 3
fi

# Prints where the built program is.
find_program() {
    for place in "$here/$1" "$here/../target/release/$1"; do
        if [ -x "$place" ] && [ -f "$place" ]; then
            printf '%s\n' "$place"
            return
        fi
    done
    [ -f "$here/../Cargo.toml" ] || die "there is no program \"$1\" beside this script and no source tree to build it from" 4
    command -v cargo >/dev/null || die 'cargo is missing: install Rust (https://rustup.rs), then run this again' 4
    say "building $1 (this takes some minutes)" >&2
    (cd "$here/.." && cargo build --release --locked -p "$1" >&2)
    printf '%s\n' "$here/../target/release/$1"
}

# put MODE FROM TO
put() {
    mkdir -p "$(dirname "$destdir$3")"
    # Beside and then into place: a program that runs right now keeps its own file.
    cp "$2" "$destdir$3.new"
    chmod "$1" "$destdir$3.new"
    mv "$destdir$3.new" "$destdir$3"
    say "installed $3"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for program in $programs; do
    binary=$(find_program "$program")
    put 755 "$binary" "$prefix/bin/$program"

    "$binary" completions bash >"$work/bash"
    put 644 "$work/bash" "$prefix/share/bash-completion/completions/$program"
    "$binary" completions zsh >"$work/zsh"
    put 644 "$work/zsh" "$prefix/share/zsh/site-functions/_$program"
    "$binary" completions fish >"$work/fish"
    put 644 "$work/fish" "$prefix/share/fish/vendor_completions.d/$program.fish"

    "$binary" man >"$work/man"
    put 644 "$work/man" "$prefix/share/man/man1/$program.1"

    unit=$here/systemd/$program.service
    if [ -f "$unit" ]; then
        sed "s|/usr/local/bin/|$prefix/bin/|g" "$unit" >"$work/unit"
        put 644 "$work/unit" "/etc/systemd/system/$program.service"
    fi
done

put 644 "$here/sysctl/90-marline.conf" /etc/sysctl.d/90-marline.conf

if [ -n "$destdir" ]; then
    exit 0
fi

sysctl -q -p /etc/sysctl.d/90-marline.conf && say "applied the sysctls" ||
    say "the sysctls could not be applied now (a container?); the machine's next start does it"
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    say "told systemd about the units"
fi
case " $programs " in *" marline-server "*)
    command -v nft >/dev/null || say 'nftables is missing, and the server needs it: run "apt install nftables"'
    say ""
    say "Next, for the server:"
    [ -e /etc/marline/server.toml ] || say "  marline-server init"
    say "  systemctl enable --now marline-server"
    say "  marline-server peer add laptop"
    ;;
esac
case " $programs " in *" marline "*)
    say ""
    say "Next, for the client:"
    say "  marline join CODE"
    say "  systemctl enable --now marline    (or, until the machine restarts: marline up)"
    ;;
esac
