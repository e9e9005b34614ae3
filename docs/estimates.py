"""Writes docs/estimates.md and docs/estimates.svg: what is predicted against what others published.

python docs/estimates.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from edgeml.plots import Labels, agreement
from edgeml.targets import profile
from edgeml.targets.estimated.laws import LEAST_SOURCES, LEVEL, classes, law
from edgeml.targets.estimated.memory import Kind, calibrated
from edgeml.targets.estimated.points import Point, published
from edgeml.targets.estimated.validation import (
    METRICS,
    Collapse,
    Row,
    Summary,
    collapses,
    form_errors,
    summaries,
    validation,
)

FOLDER = Path(__file__).parent
GOAL = 0.2
TITLES = {
    "decode_rate": "Writing: `decode_rate`, token/s",
    "prefill_rate": "Reading a prompt: `prefill_rate`, token/s",
    "latency": "Networks in ONNX Runtime: `latency`, ms",
    "slowdown": "Times as long as on a Pi 5, with engines other than ONNX Runtime",
}
INTRODUCTION = """# How good the estimates are

Written by `make docs` from the published points in `src/edgeml/targets/estimated/points.yaml`: change those, not this
file.

For a device that is not there, edgeml calculates figures from the variant's own files and from rates that are fitted on
what others published. Nothing below was measured by edgeml on such a device. Every prediction in these tables comes
from a fit that never saw the point's own source: a source is left out with all its points, and the others predict them.
An error is predicted over published, less one.
"""
SHORT = """In short: half of the rates at which language models write on a Pi 5, a Pi 4 and a Mac's GPU are predicted
within {half:.0%}, the worst is {worst:.0%} off. How fast they read a prompt, and how long networks take in ONNX
Runtime, are rough. What rests on one source is not validated at all.
"""
VALIDATED = ("pi5, all cores", "pi5, best threads", "pi4", "apple-silicon, GPU")
RANGES = f"""A range is meant to hold {LEVEL:.0%} of the points of a source that nobody has seen. It is as wide as
the misses of the sources that were left out in turn, each weighing the same, and the source that is still unseen
weighing as much as one of them (Dunn, Wasserman and Ramdas, Distribution-Free Prediction Sets for Two-Layer
Hierarchical Models, JASA 2023). That needs {LEAST_SOURCES} sources. A class with fewer takes its own largest miss,
the range of the same device's class that has them, or else the largest miss in any class of the metric: whichever is
widest. A class with one source has no prediction here: its estimates are given, with such a range, and are not
validated. The share inside is counted with ranges that, too, did not see the source.
"""
CAVEATS = """What to keep in mind:

- Writing is limited by memory: a token takes as long as its weights take to be read. That is well predicted.
- Reading a prompt depends on the build: llama.cpp came to rewrite (repack) more and more types of weights for dot
  products from 2024 to 2026. The classes keep both apart; an estimate takes what edgeml's own llama.cpp does.
- Published times in ONNX Runtime are of convolutional networks; none is known of a text encoder whose length of text is
  stated. Estimates of text encoders are an extrapolation, and say by how much.
- A Pi 4's and a Pi 3's networks are a Pi 5's times a slowdown that was published of other engines, some of them on
  overclocked boards.
- Figures that were published without decimals, such as 2 token/s, are off by up to a quarter by rounding alone.
- Not used: pages that contradict each other or name no file, prompts of unknown length on a Mac, and times of text
  encoders without the length of the text.
"""


def document(rows: list[Row]) -> str:
    """The text of docs/estimates.md."""
    shown = [one for one in summaries(rows) if one.metric == "decode_rate" and one.name in VALIDATED]
    half, worst = max(one.median or 0 for one in shown), max(one.worst or 0 for one in shown)
    parts = [
        INTRODUCTION,
        SHORT.format(half=half, worst=worst),
        "![Predicted against published](estimates.svg)\n",
        "## By class\n",
        *_classes(rows),
    ]
    parts += [RANGES, CAVEATS, "## Why these forms\n", *_forms(), "## Memory\n", *_memory(), "## Energy\n", *_energy()]
    parts += ["## Every point\n"]
    for metric in METRICS:
        parts += [f"### {TITLES[metric]}\n", *_table(POINTS, (_point(row) for row in rows if row.metric == metric))]
    parts += ["## Files\n", FILES, *_files(), "## Sources\n", *_sources()]
    return "\n".join(parts)


def plot(rows: list[Row]) -> str:
    """The picture of the rates at which language models write."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.metric == "decode_rate" and row.predicted is not None:
            groups.setdefault(row.name, []).append((row.published, row.predicted))
    labels = Labels(
        name="estimates",
        title="Predicted against published",
        description="Rates at which language models write: most points lie within 20 % of the line of agreement.",
        x="published, token/s",
        y="predicted without the point's source, token/s",
    )
    return agreement(list(groups.items()), labels)


def write() -> None:
    """Write both files again."""
    rows = validation()
    (FOLDER / "estimates.md").write_text(document(rows), encoding="utf-8")
    on_white = plot(rows).replace('style="', 'style="background: white; ', 1)
    (FOLDER / "estimates.svg").write_text(on_white + "\n", encoding="utf-8")


def _classes(rows: list[Row]) -> Iterator[str]:
    titles = ("metric", "class", "points", "sources", "median error", "mean of sources", "worst", f"inside {LEVEL:.0%}")
    yield from _table((*titles, "fitted", "range", "verdict"), map(_class, summaries(rows)))


def _class(one: Summary) -> tuple[object, ...]:
    known = law(one.metric, one.name)
    assert known, "a class has points"
    fitted = f"{1 / known.rate:.2f} times" if one.metric == "slowdown" else f"{known.rate / 1e9:.2f} e9/s"
    if one.name.startswith("apple"):
        fitted = (
            f"{known.rate:.2f} of the chip's bandwidth" if one.metric == "decode_rate" else f"{known.rate:.1f} a byte"
        )
    if known.layer_s:
        fitted += f", {known.layer_s * 1e3:.2f} ms a layer"
    shares = (_percent(share) for share in (one.median, one.mean_of_sources, one.worst, one.inside))
    return (
        f"`{one.metric}`",
        one.name,
        one.points,
        one.sources,
        *shares,
        fitted,
        f"x{known.factor:.2f}",
        _verdict(one),
    )


def _verdict(one: Summary) -> str:
    if one.median is None:
        return "not validated"
    if one.median <= GOAL:
        return "good" if one.sources >= LEAST_SOURCES else "good, few sources"
    return "rough" if one.median <= 2.5 * GOAL else "poor"


def _forms() -> Iterator[str]:
    yield (
        "A token takes `bytes / bandwidth`, or `bytes / bandwidth + layers x a time`. The second is used where it is\n"
        "clearly better on sources that were left out: median sizes of errors.\n"
    )
    names = [name for name, points in classes("decode_rate").items() if len({one.source for one in points}) > 1]
    errors = ((name, *map(_percent, form_errors(name))) for name in names)
    yield from _table(("class", "bytes alone", "with a time for each layer"), errors)


def _memory() -> Iterator[str]:
    rows = ((kind, f"{calibrated(kind)[0]:.2f}", f"{calibrated(kind)[1] / (1 << 20):.0f} MiB") for kind in KINDS)
    yield "What a process holds, from `memory_needed` of edgeml's own variants on an x86-64 machine:\n"
    yield from _table(("kind", "times its file", "base"), rows)
    board = profile("pi5")
    yield (
        "Files that nearly fill a Raspberry Pi 5 of 8 GB, or more than fill it (nyunai/edge-llm-leaderboard, whose\n"
        "build rewrote none of these weights): what edgeml says, the rate to expect if memory sufficed, and what was\n"
        "published. Where it says `does not fit` it gives no rate.\n"
    )
    yield from _table(
        ("file", "size", "edgeml says", "expected token/s", "published token/s"), map(_collapse, collapses(board))
    )


def _collapse(one: Collapse) -> tuple[object, ...]:
    size = f"{(one.point.file_bytes or 0) / 1e9:.2f} GB"
    return f"`{one.point.file}`", size, one.word, f"{one.expected:.2f}", f"{one.point.value:g}"


KINDS: tuple[Kind, ...] = get_args(Kind)


def _energy() -> Iterator[str]:
    yield (
        "Energy is time by power at the wall, from the least to the most that was published of the busy device; both\n"
        "ranges multiply. Published watts over published rate, against the prediction without the source of the rate.\n"
        "The range of power is that of the profile, which was read at the same authors too: this is no test of it.\n"
    )
    yield from _table(("device", "file", "published J/token", "predicted J/token", "inside", "source"), _joules())


def _joules() -> Iterator[tuple[object, ...]]:
    for point in published().points:
        row = next((one for one in validation_rows() if one.point is point), None) if point.watts else None
        if row is None or row.predicted is None or row.low is None or row.high is None:
            continue
        power = profile(f"{point.device}:{point.chip}" if point.chip else point.device).busy_w
        if power is None or power.low is None or power.high is None:
            continue
        joules, low, high = (point.watts or 0) / point.value, power.low / row.high, power.high / row.low
        predicted = f"{power.value / row.predicted:.2f} ({low:.2f} to {high:.2f})"
        yield _device(point), f"`{point.file}`", f"{joules:.2f}", predicted, _yes(low <= joules <= high), point.source


_ROWS: list[Row] = []


def validation_rows() -> list[Row]:
    """The rows, calculated once."""
    if not _ROWS:
        _ROWS.extend(validation())
    return _ROWS


POINTS = (
    "device",
    "file or network",
    "threads",
    "engine",
    "published",
    "predicted",
    "range",
    "error",
    "inside",
    "source",
)


def _point(row: Row) -> tuple[object, ...]:
    point = row.point
    what = f"`{point.file}`" if point.file else (point.note or "").partition(":")[0]
    threads = "" if point.threads is None else point.threads
    first = (_device(point), what, threads, point.engine, f"{row.published:.4g}")
    if row.predicted is None or row.low is None or row.high is None or row.error is None:
        return (*first, "", "", "", "", point.source)
    span = f"{row.low:.3g} to {row.high:.3g}"
    return (*first, f"{row.predicted:.3g}", span, f"{row.error:+.0%}", _yes(bool(row.inside)), point.source)


FILES = (
    "Bytes that one token streams, and multiply-adds of a token (or of an input), as they were taken from what is\n"
    "stated of each file.\n"
)


def _files() -> Iterator[str]:
    used = dict.fromkeys(point.file for point in published().points if point.file)
    yield from _table(("file", "bytes a token", "multiply-adds", "from"), map(_file, used))


def _file(name: str) -> tuple[object, ...]:
    one = published().files[name]
    read = f"{one.bytes_per_token / 1e6:.1f} MB" if one.bytes_per_token else ""
    return f"`{name}`", read, f"{one.operations / 1e9:.2f} e9", one.how


def _sources() -> Iterator[str]:
    used = {point.source for point in published().points} | {row.source for row in published().memory}
    rows = ((name, one.cite, one.date) for name, one in published().sources.items() if name in used)
    yield from _table(("name", "where", "date"), rows)


def _device(point: Point) -> str:
    return f"{point.device}:{point.chip}" if point.chip else point.device


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _yes(held: bool) -> str:  # noqa: FBT001 - what is shown is the answer itself
    return "yes" if held else "no"


def _table(titles: Iterable[str], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(titles) + " |\n|" + "---|" * len(tuple(titles))
    yield "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


if __name__ == "__main__":
    write()
