"""One line a request, on stderr: when, what, how it ended, how long. Never what was asked, answered or shown as token.

A bug's traceback is there without its message, which may hold what somebody sent.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from time import gmtime, strftime
from types import TracebackType

_LOGGER = "uvicorn.error"  # where uvicorn tells of bugs


class Placed(logging.Formatter):
    """Time and level, and of a bug its type and its places in the code alone."""

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record. Its message stays where it is uvicorn's, which holds nothing that was sent.

        Those of asyncio show what a callback was called with, or the exception that a task ended with.
        """
        said = record.getMessage().strip() if record.name == _LOGGER else f"a bug that {record.name} tells of"
        lines = [f"{_now()} {record.levelname.lower()} {said}"]
        if record.exc_info and record.exc_info[0] is not None:
            lines += [f"  {place}" for place in places(record.exc_info[2])]
            lines.append(f"  {record.exc_info[0].__name__}, its message left out: it may hold what was sent")
        return "\n".join(lines)


def places(found: TracebackType | None) -> list[str]:
    """The files, lines and functions of a traceback."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(found)]


def set_up() -> None:
    """Send warnings and bugs of the server, and nothing else, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Placed())
    for name in (_LOGGER, "asyncio", "concurrent.futures"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)


def request(method: str, route: str, status: int, took_s: float, counts: Mapping[str, int]) -> None:
    """Write the line of a request that is done; `route` is one of the known ones, not what was asked for."""
    told = "".join(f" {name}={count}" for name, count in counts.items())
    sys.stderr.write(f"{_now()} {method} {route} {status} {took_s * 1000:.1f} ms{told}\n")


def say(message: str) -> None:
    """Write a line about the server itself."""
    sys.stderr.write(f"{_now()} {message}\n")
    sys.stderr.flush()


def _now() -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
