#!/bin/sh
set -eu
home=/usr/lib/edgeml
live=$home/live

say() {
    printf '@package@: %s\n' "$1" >&2
}

have_user() {
    getent passwd edgeml >/dev/null || @add_user@
}

# The self-test runs as the service will: a model is not opened by root.
as_user() {
    setpriv --reuid=edgeml --regid=edgeml --clear-groups --no-new-privs "$@"
}

# From now on $1 is what lies in its folder; the change is one step, also where the power fails.
go_live() {
    mkdir -p "$live"
    version=.$1.$(sha256sum <"$home/$1/SHA256SUMS" | cut -c -12)
    if [ ! -d "$live/$version" ]; then
        rm -rf "$live/$version.part"
        cp -al "$home/$1" "$live/$version.part"
        mv "$live/$version.part" "$live/$version"
    fi
    ln -sfn "$version" "$live/.next.$1"
    mv -fT "$live/.next.$1" "$live/$1"
}

# What $1 was before goes; in the end, when it is live no more, all of it.
sweep() {
    for version in "$live/.$1."* "$live/.next.$1"; do
        [ "$version" = "$live/$(readlink "$live/$1" || :)" ] || rm -rf "$version"
    done
}

retire_part() {
    rm -f "$live/$1"
    sweep "$1"
    rmdir "$live" 2>/dev/null || :
}

# Whoever leaves last takes the user along.
drop_user() {
    rmdir /var/lib/edgeml /var/cache/edgeml /etc/edgeml "$home" 2>/dev/null || :
    if [ ! -e "$home" ] && [ ! -e /var/lib/edgeml ] && getent passwd edgeml >/dev/null; then
        userdel edgeml || :
    fi
}

