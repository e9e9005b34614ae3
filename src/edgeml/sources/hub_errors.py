"""What the hub's client raises, in one sentence and a hint. Knows nothing of what was being fetched."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from edgeml.errors import EdgemlError
from edgeml.types import ModelRef

Reason = tuple[str, str]


@contextmanager
def explained(ref: ModelRef) -> Iterator[None]:
    """Turn every failure of the client that a user can cause into an EdgemlError."""
    import httpx2  # the client's own HTTP library, whose errors it lets through
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, HFValidationError, OSError) as error:
        message, hint = _refused(error, ref) or _broken(error, ref)
        raise EdgemlError(message, hint=hint) from error


def _refused(error: Exception, ref: ModelRef) -> Reason | None:
    """The hub was reached and said no."""
    from huggingface_hub import errors

    known: tuple[tuple[type[Exception], Reason], ...] = (
        (errors.GatedRepoError, _gated(ref)),
        (
            errors.RepositoryNotFoundError,
            (f"the hub has no model {ref.id}", "check the spelling; if it is private: hf auth login"),
        ),
        (
            errors.RevisionNotFoundError,
            (f"{ref.id} has no revision {ref.revision}", f"without @{ref.revision} you get its main branch"),
        ),
        (
            errors.RemoteEntryNotFoundError,
            (f"the hub lists a file of {ref} that it does not have", "try again; it may be changing just now"),
        ),
        (errors.HFValidationError, (f"{ref.id} is no name that a hub can have", "write hf:org/name")),
    )
    reason = next((reason for kind, reason in known if isinstance(error, kind)), None)
    if reason is None and isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        hint = "check HF_TOKEN, or: hf auth login" if status in (401, 403) else "try again later"
        return f"the hub answered {status} when asked for {ref}", hint
    return reason


def _gated(ref: ModelRef) -> Reason:
    from huggingface_hub import get_token

    if get_token():
        message = f"{ref.id} is gated, and your account has no access to it yet"
        return message, "open the model's page, accept its licence there, then run this again"
    message = f"{ref.id} is gated, and you are not logged in"
    return message, "hf auth login, then accept the licence on the model's page"


def _broken(error: Exception, ref: ModelRef) -> Reason:
    """The hub was not reached, the connection broke, or this machine has no room."""
    import httpx2
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full; {ref} did not fit", "make room, or set HF_HOME to another disk"
    if isinstance(error, PermissionError):
        return f"cannot write to {error.filename}", "check its owner, or set HF_HOME to a folder of yours"
    if isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL, LocalEntryNotFoundError)):
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        hint = "check the network, proxy and HF_ENDPOINT; what came is kept, and HF_HUB_OFFLINE=1 uses a complete copy"
        return f"the connection to the hub failed while fetching {ref}: {cause}", hint
    return f"{ref} could not be fetched: {str(error).partition('. ')[0]}", "run it again"
