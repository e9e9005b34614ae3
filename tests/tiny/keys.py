"""Pairs of keys that sign bundles, as openssl makes them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def a_key(folder: Path, name: str = "key", *options: str) -> tuple[Path, Path]:
    """The private and the public key; `options` of `openssl ecparam` name another curve."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    curve = options or ("-name", "prime256v1")
    subprocess.run(["openssl", "ecparam", "-genkey", *curve, "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public
