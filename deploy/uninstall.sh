#!/bin/sh
# Removes what install.sh installed, after stopping it, so that everything it
# changed on this machine is put back. Settings, keys and peers stay, unless
# --purge is given.
#
#   PREFIX=/usr/local   where it was installed
#   DESTDIR=            where packagers installed it; nothing is stopped
set -eu

prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
purge=no

say() { printf '%s\n' "$*"; }
die() {
    printf 'uninstall.sh: %s\n' "$1" >&2
    exit "$2"
}

case "${1:-}" in
"") ;;
--purge) purge=yes ;;
*) die "\"$1\" is not known: only --purge is" 2 ;;
esac

if [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    die 'root is needed: run "sudo ./uninstall.sh", or set DESTDIR' 3
fi

gone() {
    if [ -e "$destdir$1" ]; then
        rm -rf "$destdir$1"
        say "removed $1"
    fi
}

for program in marline-server marline; do
    unit=/etc/systemd/system/$program.service
    if [ -z "$destdir" ] && [ -d /run/systemd/system ] && [ -e "$unit" ]; then
        systemctl disable --now "$program" && say "stopped $program"
    fi
    # What a killed daemon may have left behind.
    if [ -z "$destdir" ] && [ -x "$prefix/bin/$program" ]; then
        "$prefix/bin/$program" restore || die "$program could not put everything back: see above, then run this again" 1
    fi
    gone "$unit"
    gone "$prefix/bin/$program"
    gone "$prefix/share/bash-completion/completions/$program"
    gone "$prefix/share/zsh/site-functions/_$program"
    gone "$prefix/share/fish/vendor_completions.d/$program.fish"
    gone "$prefix/share/man/man1/$program.1"
done
gone /etc/sysctl.d/90-marline.conf

if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi

if [ "$purge" = yes ]; then
    gone /etc/marline
    gone /var/lib/marline
else
    for kept in /etc/marline /var/lib/marline; do
        if [ -e "$destdir$kept" ]; then
            say "kept $kept (--purge removes it)"
        fi
    done
fi
