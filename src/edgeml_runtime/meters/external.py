"""Energy by another meter, whose log is laid over the windows of a run: a file of `timestamp,watts` lines.

Method: watts between two readings follow a straight line (trapezoidal rule). The log must reach beyond every window at
both ends, with no gap above five seconds. Timestamps are Unix seconds, or ISO 8601; one without a zone is local time.
Knows no meter: USB testers, smart plugs and bench supplies write such logs, the columns in any order.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters import absent
from edgeml_runtime.meters.energy import figures
from edgeml_runtime.meters.sampling import Point, integral
from edgeml_runtime.types import Absent, Energy, Outcome, Window

LONGEST_GAP_S = 5.0
_COLUMNS = ("timestamp", "watts")
_POLL_S = 0.2


def require_log(path: Path) -> None:
    """Raise EdgemlError for a log that could not be read after a run either; it may hold no reading yet."""
    _points(path, written_so_far=True)


def read_log(path: Path) -> tuple[Point, ...]:
    """Unix seconds and watts of each line; raises EdgemlError naming the first line that cannot be read."""
    found = _points(path)
    if not found:
        raise EdgemlError(f"{path} holds no reading", hint="log during the whole run")
    return found


def awaited_log(path: Path, until_s: float, *, offset_s: float = 0.0) -> tuple[Point, ...]:
    """The log as soon as a line lies at `until_s` or later, since a logger writes its next one only then.

    No longer than a gap may be: after LONGEST_GAP_S seconds it is read as it is. `offset_s` is that of `laid_over`.
    """
    deadline_s = time.monotonic() + LONGEST_GAP_S
    while time.monotonic() < deadline_s:
        found = _points(path, written_so_far=True)
        if found and found[-1][0] + offset_s >= until_s:
            return found
        time.sleep(_POLL_S)
    return read_log(path)


def laid_over(outcome: Outcome, log: Sequence[Point], *, offset_s: float = 0.0) -> Outcome:
    """The outcome with the energy of a log; absent with the reason where the log does not cover every window.

    `offset_s` is added to the log's times: how far this machine's clock is ahead of the meter's. An outcome without
    windows comes back as it is.
    """
    if outcome.energy is None:
        return outcome
    points = [(at_s + offset_s, watts) for at_s, watts in log]
    windows = [_read(window, points) for window in outcome.energy.windows]
    missing = [one for one in windows if isinstance(one, Absent)]
    kept = tuple(one for one in outcome.absent if one.metric != "energy")
    if missing:
        return msgspec.structs.replace(outcome, absent=(*kept, missing[0]))
    energy = _energy(outcome.energy, [one for one in windows if isinstance(one, Window)])
    samples = [one for one in outcome.samples if not one.metric.startswith(("energy", "power_idle"))]
    return msgspec.structs.replace(outcome, absent=kept, samples=(*samples, *figures(energy)), energy=energy)


def _points(path: Path, *, written_so_far: bool = False) -> tuple[Point, ...]:
    """The readings, of whole lines alone where the log may just be written to."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if written_so_far:
            text = text[: text.rfind("\n") + 1] or text
        return _parsed(path, csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EdgemlError(f"cannot read {path}: {reason}", hint="give a CSV file with timestamp,watts") from error


def _parsed(path: Path, rows: csv.DictReader[str]) -> tuple[Point, ...]:
    if not set(_COLUMNS) <= set(rows.fieldnames or ()):
        raise EdgemlError(f"{path} has no columns {' and '.join(_COLUMNS)}", hint="write them in its first line")
    found: list[Point] = []
    for row in rows:
        point = _point(row["timestamp"], row["watts"])
        if point is None:
            hint = "timestamps are Unix seconds or ISO 8601, watts are numbers from 0 on"
            raise EdgemlError(f"{path}, line {rows.line_num}: cannot read {row['timestamp']},{row['watts']}", hint=hint)
        if found and point[0] < found[-1][0]:
            raise EdgemlError(f"{path}, line {rows.line_num}: time goes back", hint="sort the log, or cut it there")
        found.append(point)
    return tuple(found)


def _point(timestamp: str | None, watts: str | None) -> Point | None:
    try:
        power = float(watts or "")
        seconds = _seconds((timestamp or "").strip())
    except ValueError:
        return None
    return (seconds, power) if math.isfinite(seconds) and math.isfinite(power) and power >= 0 else None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _read(window: Window, points: Sequence[Point]) -> Window | Absent:
    begin, end = window.started_s, window.started_s + window.duration_s
    before = [point for point in points if point[0] <= begin][-1:]
    after = [point for point in points if point[0] >= end][:1]
    inside = [point for point in points if begin < point[0] < end]
    if not before or not after:
        reason = f"the log runs {_span(points)}, and a window of {_span([(begin, 0), (end, 0)])}"
        return absent(reason, hint="log during the whole run, or correct the clocks: --csv-offset-s")
    used = [*before, *inside, *after]
    gap = max(later - earlier for (earlier, _), (later, _) in pairwise(used)) if len(used) > 1 else 0
    if gap > LONGEST_GAP_S:
        return absent(f"the log has a gap of {gap:.0f} s in a window", hint="log at least once in five seconds")
    return msgspec.structs.replace(window, joules=integral(used, begin, end), readings=len(inside))


def _span(points: Sequence[Point]) -> str:
    first, last = (datetime.fromtimestamp(points[end][0], UTC).isoformat(timespec="seconds") for end in (0, -1))
    return f"from {first} to {last}"


def _energy(energy: Energy, windows: Iterable[Window]) -> Energy:
    read = tuple(windows)
    seconds = sum(window.duration_s for window in read)
    return msgspec.structs.replace(
        energy,
        meter="external",
        scope="what the outside meter measures",
        kind="sampled",
        excludes="what it does not see",
        windows=read,
        sampling_hz=sum(window.readings for window in read) / seconds if seconds else None,
        coverage=1.0,
        uncertainty=None,
    )
