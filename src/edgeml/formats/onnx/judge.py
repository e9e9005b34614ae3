"""How well a graph agrees with the one in fp32 that it was made from, and how long an inference of each takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.formats.onnx.inputs import Feeds, Reader, spread
from edgeml.formats.onnx.seq2seq import PAIRS
from edgeml_runtime.session import Kind

if TYPE_CHECKING:
    import onnxruntime as ort

_LAST = 8  # tokens of a decoder whose logits are compared: a vocabulary may be 150 000 wide
_WARMUPS = 2
_ROUNDS = (5, 31)  # at least, at most
_TIMED_S = 3.0  # between those
_QUICK = 8  # inputs that judge one node of many
_TIMING = "time it and fp32 in turn"
Say = Callable[[int, int, str], None]


def _unheard() -> None:
    """Nobody counts."""


class Judge:
    """Compares graphs with `reference` on inputs that set no range."""

    def __init__(self, reference: Path, inputs: Reader, kind: Kind) -> None:
        self.reference, self.inputs, self.kind = reference, inputs, kind
        self._answers: dict[int, list[Any]] = {}

    def agreement(self, path: Path, *, quick: bool = False, tick: Callable[[], None] = _unheard) -> float:
        """Cosine to the reference's outputs, the mean over the inputs; with `quick` over 8 of them.

        An answer that holds no finite number agrees by 0. `tick` is called once for each input.
        """
        rows = range(len(self.inputs.lengths))
        chosen = spread(rows, _QUICK) if quick else list(rows)
        self._answer([row for row in chosen if row not in self._answers])
        session = _opened(path)
        found = []
        for row in chosen:
            found.append(_cosine(self._outputs(session, self.inputs.feeds(row)), self._answers[row]))
            tick()
        return float(np.mean(found))

    def times_ms(self, paths: Mapping[str, Path], say: Say) -> dict[str, float]:
        """Milliseconds of one inference of each graph: the median of runs in turn, on an input of median length.

        `say` is told of each round, between the runs.
        """
        feeds = self.inputs.feeds(_median_row(self.inputs.lengths))
        say(0, 100, _TIMING)
        sessions = {name: _opened(path) for name, path in paths.items()}
        for session in sessions.values():
            for _ in range(_WARMUPS):
                session.run(None, feeds)
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        began_s = time.perf_counter()
        least, most = _ROUNDS
        for number in range(most):
            share = max(number / most, (time.perf_counter() - began_s) / _TIMED_S)
            if number >= least and share > 1:
                break
            say(int(100 * min(share, number / least)), 100, _TIMING)
            for name, session in sessions.items():
                start_s = time.perf_counter()
                session.run(None, feeds)
                taken[name].append(1000 * (time.perf_counter() - start_s))
        return {name: round(median(values), 4) for name, values in taken.items()}

    def _answer(self, rows: list[int]) -> None:
        """Keep what the reference gives for these inputs."""
        session = _opened(self.reference) if rows else None
        for row in rows:
            self._answers[row] = self._outputs(session, self.inputs.feeds(row))

    def _outputs(self, session: Any, feeds: Feeds) -> list[Any]:
        """What counts of a run: the first output, or of a graph that only feeds another all of them."""
        names = [item.name for item in session.get_outputs()]
        first = names[0] if "cross_attention" not in names[0] else None
        found = session.run([first] if first else names, feeds)
        if self.kind not in ("decoder", *PAIRS) or first is None:
            return list(found)
        logits = found[0][:, -_LAST:]
        return [logits - logits.mean(-1, keepdims=True)]  # what is added to every logit changes no probability


def _cosine(ours: list[Any], theirs: list[Any]) -> float:
    one, other = (np.concatenate([value.ravel().astype(np.float64) for value in values]) for values in (ours, theirs))
    if not np.isfinite(one).all():
        return 0.0
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else float(one.any() == other.any())


def _median_row(lengths: tuple[int, ...]) -> int:
    return sorted(range(len(lengths)), key=lengths.__getitem__)[len(lengths) // 2]


def _opened(path: Path) -> ort.InferenceSession:
    from edgeml_runtime.backends.onnx import open_graph
    from edgeml_runtime.machine import default_threads

    return open_graph(path, threads=default_threads())
