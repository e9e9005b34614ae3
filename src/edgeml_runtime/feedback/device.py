"""A device's side of `edgeml feedback pull`: finds the store, copies it, removes what came home.

The standard library alone, in one file: its text is what a call runs, `python3 -I -S -c TEXT COMMAND`, before anything
of a bundle needs to be found. On stdin a line of JSON asks; on stdout a line of JSON answers, and bytes may follow.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

ANSWER = b"\n@edgeml "  # begins the answer: a login script may have said something before
NAME = "feedback.sqlite"  # of every store that edgeml writes a configuration for, so that it is found
_ROOTS = ("/var/lib", "~/.local/state", "~/.local/share")
_WAIT_S = 30.0  # for the endpoint to finish what it writes


def find(ask: Any) -> tuple[Any, bytes]:
    """Where stores lie: below folders of edgeml's own, with a folder of the bundle's name where one is asked for.

    `closed` are folders there that this user may not look into.
    """
    homes = [path for root in _ROOTS for path in Path(root).expanduser().glob("edgeml*")]
    folders = [folder for home in homes for folder in (home, *home.glob("*")) if folder.is_dir()]
    files = sorted({str(path) for home in homes for path in home.glob(f"**/{NAME}")})
    bundle = ask["bundle"]
    return {
        "files": [path for path in files if not bundle or bundle in Path(path).parts],
        "closed": [str(folder) for folder in folders if not os.access(folder, os.R_OK | os.X_OK)],
    }, b""


def copy(ask: Any) -> tuple[Any, bytes]:
    """The store as it is between two changes, which SQLite's backup sees to; no copy of it stays on the device."""
    with contextlib.closing(_opened(ask["file"])) as source, contextlib.closing(sqlite3.connect(":memory:")) as goal:
        source.backup(goal)
        content = goal.serialize()
    return {"size_bytes": len(content)}, content


def forget(ask: Any) -> tuple[Any, bytes]:
    """Removes items by their ids, all or none; their place in the file is overwritten."""
    with contextlib.closing(_opened(ask["file"])) as database:
        database.execute("PRAGMA secure_delete = ON")
        database.execute("PRAGMA synchronous = EXTRA")
        with database:  # a transaction
            counts = [database.execute("DELETE FROM items WHERE id = ?", (id,)).rowcount for id in ask["ids"]]
    return {"removed": sum(counts)}, b""


def main() -> None:
    """Carry out one command."""
    ask = json.loads(sys.stdin.buffer.readline())
    try:
        answer, content = {"find": find, "copy": copy, "forget": forget}[sys.argv[1]](ask)
    except (OSError, sqlite3.Error) as error:
        says = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        answer, content = {"refused": says}, b""
    sys.stdout.buffer.write(ANSWER + json.dumps(answer).encode() + b"\n" + content)


def _opened(path: str) -> sqlite3.Connection:
    with Path(path).open("rb"):  # SQLite does not say why it cannot
        pass
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, timeout=_WAIT_S)


if __name__ == "__main__":
    main()
