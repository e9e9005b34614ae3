"""By what an input is known as the same: the digest of its content, whatever device it came from, and when."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from typing import Any

from edgeml_runtime.feedback.redaction import EVERY_RULE


def content_hash(input: dict[str, Any]) -> str:
    """The sha256 of an input, in hex, after all that makes no other input of it.

    Every built-in redaction rule is applied, so that devices with other settings agree. Of its texts and keys, Unicode
    is in NFKC, case is folded, white space of any length is one space and none at the ends. The order of keys counts
    for nothing, that of lists does. A word more is another input.
    """
    plain = _normal(EVERY_RULE(input))
    text = json.dumps(plain, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
        return " ".join(folded.split())
    if isinstance(value, dict):
        return {_normal(key): _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return value
