"""What happens beside a test: in another thread, whose failure is the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgeml.errors import EdgemlError

_PATIENCE_S = 20


@contextmanager
def meanwhile(do: Callable[[], object]) -> Iterator[None]:
    """Another thread does it, and has done it when the block ends."""
    failed = []

    def carefully() -> None:
        try:
            do()
        except (OSError, EdgemlError, AssertionError) as error:
            failed.append(error)

    thread = threading.Thread(target=carefully, daemon=True)
    thread.start()
    yield
    thread.join(_PATIENCE_S)
    assert not thread.is_alive()
    assert not failed, failed
