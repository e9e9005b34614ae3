"""Encryption of single items, AES-256-GCM (NIST SP 800-38D) by the package `cryptography`, which a key alone needs.

A key on the same card as the items protects from nobody who has the card: keep it elsewhere, such as in a TPM's care
or on a disk that a person unlocks.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.secret_files import others_may_read

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12  # random; the standard allows 2^32 items under one key, which no card holds
_KEY = re.compile(rb"\s*([0-9a-fA-F]{64})\s*")


class Seal:
    """One key. What it seals opens only under the same `name`, so that no item can be laid in another's place."""

    def __init__(self, cipher: AESGCM) -> None:
        self._cipher = cipher

    def close(self, plain: bytes, name: str) -> bytes:
        """The sealed bytes."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """What was sealed. Raises EdgemlError for another key, another name, or bytes that changed."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            hint = "give the key file that the device used; without it, nobody can read them"
            raise EdgemlError("the key does not open the feedback, or somebody changed it", hint=hint) from error


def seal_of(key_file: Path) -> Seal:
    """The key in a file of 64 hexadecimal digits.

    Raises EdgemlError where it cannot be read or others may, it holds something else, or the package is missing: a key
    is never ignored.
    """
    try:
        is_open, found = others_may_read(key_file), _KEY.fullmatch(key_file.read_bytes())
    except OSError as error:
        raise EdgemlError(
            f"cannot read the key {key_file}: {error.strerror}", hint="check feedback.key_file"
        ) from error
    if is_open:
        raise EdgemlError(f"others may read the key {key_file}", hint=f"chmod 600 {key_file}")
    if not found:
        hint = "make one: edgeml feedback key FILE"
        raise EdgemlError(f"{key_file} holds no key, which is 64 hexadecimal digits", hint=hint)
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        hint = "sudo apt install python3-cryptography, or pip install cryptography; without a key, it is not needed"
        raise EdgemlError("a key is given, and the Python package cryptography is missing", hint=hint) from error
    return Seal(AESGCM(bytes.fromhex(found[1].decode())))
