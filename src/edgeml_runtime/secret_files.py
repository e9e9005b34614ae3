"""Files that hold a secret, such as a token or a key: whether they keep it."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def others_may_read(path: Path) -> bool:
    """Whether another user may; never on Windows, whose modes say nothing of it. Raises OSError where there is none."""
    open_to_others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return bool(open_to_others) and os.name != "nt" and not _given_by_systemd(path)


def _given_by_systemd(path: Path) -> bool:
    """A credential lies in a folder of the service's own, and systemd lets its group read it by an access list."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.resolve().is_relative_to(Path(folder).resolve())
