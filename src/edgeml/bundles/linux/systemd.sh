# $1 is a service that is here for the first time, or one whose files have changed.
begin_service() {
    command -v systemctl >/dev/null || { say "no systemd here: start it with @package@ serve --config /etc/edgeml/${1#edgeml-}.toml"; return 0; }
    systemctl enable --quiet "$1"
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload
    systemctl start "$1" || say "it is installed, but its service did not start: journalctl -u $1"
}

# A service that somebody has stopped stays so.
renew_service() {
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload
    systemctl try-restart "$1" || say "it is installed, but its service did not start again: journalctl -u $1"
}

end_service() {
    command -v systemctl >/dev/null || return 0
    [ ! -d /run/systemd/system ] || systemctl stop "$1" || :
    systemctl disable --quiet "$1" || :
}

forget_service() {
    [ ! -d /run/systemd/system ] || systemctl daemon-reload || :
}

