"""One case at a time, under limits: what a reader may do with a bad file is to refuse it in one sentence, at once."""

from __future__ import annotations

import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from edgeml.errors import EdgemlError

LIMIT_S = 1.0  # of processor time, so that a busy machine fails nothing
LIMIT_BYTES = 512 << 20  # more than any of these files of a few KB may ask for
SEED = 20  # of the tests; a longer run takes others
_LONGEST = 4000


class Reader(NamedTuple):
    """A reader with good files to begin from, how they are spoiled, and the path that it is given."""

    seeds: Callable[[Path], list[bytes]]
    spoil: Callable[[bytes, Random], bytes]
    read: Callable[[Path], object]
    name: str


class Fault(NamedTuple):
    """A case that ended neither well nor in a refusal."""

    case: int
    what: str
    content: bytes


def faults(reader: Reader, folder: Path, *, count: int, seed: int) -> Iterator[Fault]:
    """Every fault among `count` cases of one seed; the good files themselves are read first, and must be."""
    seeds = reader.seeds(folder)
    space = folder / "space"
    space.mkdir()
    for place, good in enumerate(seeds):
        found = trouble(reader, space / f"good-{place}", good)
        assert not found, f"{reader.name}: the good file {place} is not read: {found}"
    for case in range(count):
        random = Random(f"{reader.name} {seed} {case}")
        content = reader.spoil(random.choice(seeds), random)
        found = trouble(reader, space / str(case), content)
        if found and not found.startswith("refused"):
            yield Fault(case, found, content)


def trouble(reader: Reader, folder: Path, content: bytes) -> str | None:
    """None where the content was read; else "refused", or what is wrong with how the reader failed."""
    folder.mkdir()
    path = folder / reader.name
    path.write_bytes(content)
    try:
        with limits():
            reader.read(path)
    except EdgemlError as error:
        return "refused: " + error.message if is_sentence(error) else f"no plain sentence: {error.message[:300]!r}"
    except BaseException as error:  # also what a library in another language throws
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-8:]
        where = " <- ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(last))
        return f"{type(error).__name__}: {str(error)[:200]} ({where})"
    return None


class SlowError(BaseException):
    """A case that took longer than LIMIT_S; no reader may catch it."""


@contextmanager
def limits() -> Iterator[None]:
    """Processor time and memory bounded as long as the block lasts."""

    def ended(number: int, frame: object) -> None:
        raise SlowError(f"more than {LIMIT_S} s")

    before, (soft, hard) = signal.signal(signal.SIGPROF, ended), resource.getrlimit(resource.RLIMIT_AS)
    if Path("/proc/self/statm").exists():  # elsewhere there is a limit on time alone
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT_BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def is_sentence(error: EdgemlError) -> bool:
    """Whether it is one line of bearable length with a hint, and holds nothing that a terminal would obey."""
    texts = (error.message, error.hint)
    return all(text and len(text) <= _LONGEST and "\x1b" not in text and "\0" not in text for text in texts)
