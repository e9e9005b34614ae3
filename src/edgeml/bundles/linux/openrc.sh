# $1 is a service that is here for the first time, or one whose files have changed.
begin_service() {
    command -v rc-update >/dev/null || { say "no OpenRC here: start it with @package@ serve --config /etc/edgeml/${1#edgeml-}.toml"; return 0; }
    rc-update --quiet add "$1" default
    [ -d /run/openrc ] || return 0
    rc-service "$1" start || say "it is installed, but its service did not start: rc-service $1 start"
}

# A service that somebody has stopped stays so.
renew_service() {
    [ -d /run/openrc ] || return 0
    rc-service --ifstarted "$1" restart || say "it is installed, but its service did not start again"
}

end_service() {
    [ ! -d /run/openrc ] || rc-service --ifstarted "$1" stop || :
    command -v rc-update >/dev/null && rc-update --quiet delete "$1" default || :
}

forget_service() {
    :
}

