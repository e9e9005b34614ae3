"""Every error a user may see; the type itself travels with the runtime."""

from __future__ import annotations

import errno

from edgeml_runtime.errors import EdgemlError, why

__all__ = ["EdgemlError", "disk_refusal", "why"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)
_TAKEN = (errno.EEXIST, errno.EISDIR, errno.ELOOP)  # another kind of file stands where a folder or a file is to be


def disk_refusal(error: OSError) -> EdgemlError | None:
    """What a full or forbidden disk is for a user; None for an error of the system that is a bug of ours."""
    if error.errno in _FULL:
        return EdgemlError("the disk is full", hint="make room, or set --artifacts or EDGEML_CACHE to another disk")
    if error.errno in _REFUSED:
        what = f"cannot use {error.filename or 'a file'}: {error.strerror}"
        return EdgemlError(what, hint="check who may write there, or name another --artifacts folder")
    if error.errno in _TAKEN:
        what = f"cannot use {error.filename or 'a file'}: {error.strerror}"
        return EdgemlError(what, hint="move it away, or name another --artifacts folder")
    return None
