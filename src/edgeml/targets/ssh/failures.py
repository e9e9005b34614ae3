"""Why SSH could not do it, told from the client's own words: each cause has its sentence and its way out."""

from __future__ import annotations

import re

from edgeml.errors import EdgemlError

_MESSAGE = re.compile(r"\S")
# The client's words are those of OpenSSH's ssh.c, sshconnect.c, clientloop.c and mux.c, in English since LC_ALL is C.
_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_UNVERIFIED = re.compile(r"Host key verification failed|No .* host key is known for")
_UNKNOWN_NAME = "Could not resolve hostname"
_REFUSED = re.compile(r"connect to (host|address) .*Connection refused")
_NO_ROUTE = re.compile(r"connect to (host|address) .*(No route to host|Network is unreachable|Host is down)")
_NO_ANSWER = re.compile(
    r"connect to (host|address) .*timed out|timed out during banner exchange|Connection to \S+ port \d+ timed out"
)
_DENIED = re.compile(r"Permission denied \(([\w,-]*)\)|Too many authentication failures")
_BROKEN = re.compile(
    r"Broken pipe|Connection reset|Connection closed|closed by remote host|not responding|Read from remote host"
    r"|mux_client|Master is dead|kex_exchange_identification|lost connection|disconnect"
)


class ConnectionLost(EdgemlError):  # noqa: N818 - it says what happened
    """The device does not answer now, or the link broke while it did: the same may work a moment later."""


class Unreachable(ConnectionLost):
    """No connection was made at all: no such name, nobody listens there, no way to it, or no answer."""


def of_client(host: str, words: str, *, met: bool) -> EdgemlError:
    """What the client's exit code 255 means, by its last words; `met` if an earlier command reached the device."""
    for judge in (_name_or_way, _key_of_host, _key_of_user):
        if found := judge(host, words):
            return found
    if met or not _MESSAGE.search(words) or _BROKEN.search(words):
        return lost(host)
    return EdgemlError(f"ssh cannot reach {host}: {last_line(words)}", hint=f"try it by hand: ssh {host} true")


def lost(host: str) -> ConnectionLost:
    """The link broke in the middle."""
    hint = "check its power and network, then run the same command again: it goes on where it stopped"
    return ConnectionLost(f"the connection to {host} was lost", hint=hint)


def slow(host: str, timeout_s: float) -> ConnectionLost:
    """A command there did not end in its time."""
    return ConnectionLost(f"{host} did not answer within {timeout_s:g} s", hint=f"see what it does: ssh {host} uptime")


def no_client() -> EdgemlError:
    """There is no `ssh` here."""
    return EdgemlError("no ssh client here", hint="install OpenSSH's: sudo apt install openssh-client")


def no_shell(host: str, words: str) -> EdgemlError:
    """The account was reached, but nothing runs there."""
    hint = f"edgeml needs Linux or macOS there, and an account with a shell: try ssh {host} uname"
    return EdgemlError(f"{host} runs no shell script: {last_line(words)}", hint=hint)


def unwritten(host: str, folder: str, words: str) -> EdgemlError:
    """A file did not arrive on a device that was reached."""
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return EdgemlError(f"the disk of {host} is full", hint=f"make room there: ssh {host} df -h")
    return EdgemlError(
        f"cannot write into {folder} on {host}: {last_line(words)}", hint=f"look at it by hand: ssh {host}"
    )


def last_line(words: str) -> str:
    """The last thing that was said."""
    said = [line.strip() for line in words.splitlines() if line.strip()]
    return said[-1] if said else "it gave no reason"


def address(host: str) -> tuple[str, int | None]:
    """User and name, and the port where one was given: `ssh://pi@10.0.0.7:2222` is `pi@10.0.0.7` and 2222."""
    found = re.fullmatch(r"(?:ssh://)([^/:]+)(?::(\d+))?/?", host)
    return (found[1], int(found[2]) if found[2] else None) if found else (host, None)


def _name_or_way(host: str, words: str) -> EdgemlError | None:
    if _UNKNOWN_NAME in words:
        numeric = "use its address: `hostname -I` on the device shows it"
        local = address(host)[0].endswith(".local")
        hint = f"names that end in .local come and go; {numeric}" if local else f"check the spelling, or {numeric}"
        return Unreachable(f"no device is known by the name {host}", hint=hint)
    if _REFUSED.search(words):
        hint = "switch SSH on there (on a Raspberry Pi: sudo raspi-config nonint do_ssh 0), or check the port"
        return Unreachable(f"{host} is there but takes no SSH connection", hint=hint)
    if _NO_ROUTE.search(words):
        return Unreachable(f"there is no way to {host}", hint="check that both are on the same network, and its power")
    if _NO_ANSWER.search(words):
        hint = "check its power, network and address; right after power-on, it needs a minute"
        return Unreachable(f"{host} does not answer", hint=hint)
    return None


def _key_of_host(host: str, words: str) -> EdgemlError | None:
    if _CHANGED in words:
        named = re.search(r"-R [\"']?([^\"'\s]+)", words)
        known = named[1] if named else _known_as(host)
        hint = f"after a new system card that is expected: ssh-keygen -R '{known}'; else somebody may stand in between"
        return EdgemlError(f"{host} has another key than the last time", hint=hint)
    if _UNVERIFIED.search(words):
        hint = f"run `ssh {host}` once and compare the key, or add --accept-new to trust the first one seen"
        return EdgemlError(f"{host} was never met before, so its key is not known", hint=hint)
    return None


def _key_of_user(host: str, words: str) -> EdgemlError | None:
    found = _DENIED.search(words)
    if not found:
        return None
    name, port = address(host)
    if found[1] is None:
        hint = f"your keys are too many: name the one for it, ssh -i KEY {host}, or IdentityFile in ~/.ssh/config"
    elif "password" not in found[1] and "keyboard-interactive" not in found[1]:
        hint = f"it takes keys only: unlock yours with ssh-add, or see with ssh -v {host} which ones it was offered"
    else:
        copy = f"ssh-copy-id {f'-p {port} ' if port else ''}{name}"
        hint = f"nothing asks for a password here: let it know your key once, {copy}, and unlock it with ssh-add"
    return EdgemlError(f"{host} lets nobody in with your keys", hint=hint)


def _known_as(host: str) -> str:
    name, port = address(host)
    name = name.rpartition("@")[2]
    return f"[{name}]:{port}" if port else name
