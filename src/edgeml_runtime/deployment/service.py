"""The endpoint of an installation as a service of its user's systemd: its unit, its restart, and whether it answers."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeml_runtime.deployment.files import text_of

UNITS = Path.home() / ".config" / "systemd" / "user"
SETTINGS = "serve.toml"
_POLL_S = 0.2
_UNIT = """[Unit]
Description=edgeml endpoint of {name}

[Service]
ExecStart=/bin/sh "{root}/current/run.sh" serve{config}
Restart=on-failure
RestartSec=5
NoNewPrivileges=yes
LimitCORE=0

[Install]
WantedBy=default.target
"""


def restarted(root: Path, ask: Any) -> str | None:
    """Why the endpoint does not answer; None where it does."""
    for words in (("daemon-reload",), ("enable", unit_of(root).name), ("restart", unit_of(root).name)):
        if said := systemctl(*words):
            return f"systemctl --user {' '.join(words)} failed: {said}"
    return _unready(root, ask["ready_s"])


def systemctl(*words: str) -> str | None:
    """What it said, where it failed."""
    runtime = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
    try:
        command = ["systemctl", "--user", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=runtime | os.environ, check=False)
    except FileNotFoundError:
        return "this system has no systemd"
    said = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (said[-1] if said else f"it ended with {done.returncode}")


def _unready(root: Path, limit_s: float) -> str | None:
    try:
        settings = tomllib.loads(text_of(root / SETTINGS) or "")
    except (ValueError, RecursionError) as error:  # a person may have changed it
        return f"{root / SETTINGS} is no TOML: {error}"
    host, port = str(settings.get("host", "127.0.0.1")), settings.get("port", 8080)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where it may listen, not where we do
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/ready"
    last, end_s = "it took no connection", time.monotonic() + limit_s
    while time.monotonic() < end_s:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()
        except urllib.error.HTTPError as error:
            last = f"it answered {error.code}"
            error.close()
        except (OSError, http.client.HTTPException):  # nobody there, or something else
            pass
        else:
            return None
        time.sleep(min(_POLL_S, limit_s))
    return f"its endpoint was not ready at {url} within {limit_s:g} s: {_last_words(unit_of(root).name) or last}"


def _last_words(unit: str) -> str | None:
    """The last line that a unit wrote, where the user may read it."""
    command = ["journalctl", "--user", "--unit", unit, "--lines=1", "--output=cat", "--quiet"]
    with suppress(FileNotFoundError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None


def unit_of(root: Path) -> Path:
    """Where the unit of an installation lies, whether there is one or not."""
    return UNITS / f"edgeml-{re.sub(r'[^A-Za-z0-9._-]', '_', root.name)}.service"


def unit_text(root: Path) -> str:
    """The unit of an installation, which serves whatever version is the current one."""
    escaped = str(root).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    config = f' --config "{escaped}/{SETTINGS}"' if (root / SETTINGS).exists() else ""
    return _UNIT.format(name=root.name.replace("%", "%%"), root=escaped, config=config)


def lingers(root: Path) -> bool | None:
    """Whether the user's services run while nobody is logged in; None where there is no service, or nobody says."""
    if not unit_of(root).exists():
        return None
    command = ["loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"]
    with suppress(FileNotFoundError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {"yes": True, "no": False}.get(done.stdout.strip())
    return None
