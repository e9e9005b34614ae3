"""What the endpoint counts, as Prometheus reads it (text format 0.0.4). Every call is made on the event loop's thread.

Source of the format: prometheus.io/docs/instrumenting/exposition_formats. Latency runs from a request's headers to the
end of its response. Memory is this process's own, from /proc/self/status; where there is none, so is the figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml_runtime.meters import choose
from edgeml_runtime.meters.sysfs import text
from edgeml_runtime.types import Absent, EnergyPlan

if TYPE_CHECKING:
    from edgeml_runtime.meters import Meter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MEMORY = {"VmRSS": "resident", "RssAnon": "anonymous"}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts since the start. `waiting` tells how many requests wait now."""

    def __init__(self, waiting: Callable[[], int], *, status: Path = Path("/proc/self/status")) -> None:
        self._waiting = waiting
        self._status = status
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, float] = {}
        self._slots: dict[str, list[int]] = {}
        self._tokens: Counter[str] = Counter()
        self._energy = Joules()

    def request(self, route: str, status: int, took_s: float) -> None:
        """Count a request that is done."""
        self._requests[route, status] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + took_s
        slots = self._slots.setdefault(route, [0] * (len(BUCKETS_S) + 1))
        slots[bisect_left(BUCKETS_S, took_s)] += 1

    def tokens(self, counts: Mapping[str, int]) -> None:
        """Count tokens by what they were: read, kept, written."""
        self._tokens.update(counts)

    def text(self) -> str:
        """Everything, a line a figure."""
        lines = [line for family in self._families() for line in family]
        return "\n".join(lines) + "\n"

    def _families(self) -> Iterator[list[str]]:
        requests: dict[Labels, float] = {
            (("route", route), ("status", str(status))): count for (route, status), count in self._requests.items()
        }
        yield _family("edgeml_requests_total", "counter", "Requests by route and status.", requests)
        yield self._histogram()
        yield _family("edgeml_queue_length", "gauge", "Requests that wait.", {(): self._waiting()})
        tokens: dict[Labels, float] = {(("kind", kind),): count for kind, count in self._tokens.items()}
        yield _family("edgeml_tokens_total", "counter", "Tokens read, of them kept, and written.", tokens)
        if memory := self._memory():
            yield _family("edgeml_memory_bytes", "gauge", "Memory of this process.", memory)
        if (joules := self._energy.read()) is not None:
            help = f"Energy of the {self._energy.scope} since the start, whoever used it."
            yield _family("edgeml_energy_joules_total", "counter", help, {(): joules})

    def _histogram(self) -> list[str]:
        name = "edgeml_request_seconds"
        lines = [f"# HELP {name} Time of a request, by route.", f"# TYPE {name} histogram"]
        for route, slots in self._slots.items():
            total = 0
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), slots, strict=True):
                total += count
                lines.append(f'{name}_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'{name}_sum{{route="{route}"}} {self._seconds[route]:.6f}')
            lines.append(f'{name}_count{{route="{route}"}} {total}')
        return lines

    def _memory(self) -> dict[Labels, float]:
        lines = (line.split() for line in (text(self._status) or "").splitlines())
        found = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words and words[0][:-1] in _MEMORY}
        return {(("kind", _MEMORY[name]),): size for name, size in found.items()}


class Joules:
    """A counter of energy, where this machine has one that can be read in no time."""

    def __init__(self) -> None:
        self.scope = ""
        self._meter: Meter | None = None
        self._total = 0.0
        chosen = choose(EnergyPlan())
        if not isinstance(chosen, Absent) and chosen[1].about().kind == "counter":
            self._meter = chosen[1]
            self.scope = self._meter.about().scope
            self._meter.start()

    def read(self) -> float | None:
        """Joules since the start; None without a counter. Read less than a second ago, it is what it was then."""
        if self._meter is None:
            return None
        if self._meter.enough():
            reading = self._meter.stop()
            self._total += 0.0 if isinstance(reading, Absent) else reading.joules or 0.0
            self._meter.start()
        return self._total


def _family(name: str, kind: str, help: str, values: Mapping[Labels, float]) -> list[str]:
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in values.items():
        inner = ",".join(f'{key}="{text}"' for key, text in labels)
        lines.append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")
    return lines
