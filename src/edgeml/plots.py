"""Plots as SVG text: the same input gives the same bytes. Knows nothing of measurements or pages.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers tell apart; every one has
a marker of its own, for print in grey.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml_runtime.types import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH_IN = 5.0  # narrow, so that its text is still read on a phone
DOTS = 300  # of one row of samples
_GREY = "#595959"
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.unicode_minus": True,
    "path.simplify": False,  # it drops the zero-length strokes that dots are drawn by
}
_NOWHEN = {"Date": None, "Creator": None, "Format": None, "Type": None}
# Where a label may stand beside its marker, in points: the first place that is free is taken.
_PLACES = (
    (7, 6, "left"),
    (7, -14, "left"),
    (-7, 6, "right"),
    (-7, -14, "right"),
    (7, 18, "left"),
    (-7, 18, "right"),
    (8, -4, "left"),
    (-8, -4, "right"),
)


class Spot(Record, frozen=True, kw_only=True):
    """One variant in the plane of cost (x, less is better) and quality (y), with the bounds of both."""

    name: str
    x: float
    y: float
    x_bounds: tuple[float, float] | None = None
    y_bounds: tuple[float, float] | None = None


class Strip(Record, frozen=True, kw_only=True):
    """One variant's samples in the order they were taken, warm-ups apart."""

    name: str
    values: tuple[float, ...]
    warmups: tuple[float, ...] = ()


class Labels(Record, frozen=True, kw_only=True):
    """What stands around a plot. `name` is unique on its page; `description` is for those who cannot see it."""

    name: str
    title: str
    description: str
    x: str
    y: str = ""


def optimal(spots: Sequence[Spot], *, lower_is_better: bool = False) -> list[Spot]:
    """The Pareto-optimal spots by rising cost: no other is at least as good in both ways, and better in one."""
    sign = -1 if lower_is_better else 1

    def beaten(one: Spot) -> bool:
        return any(
            other.x <= one.x and sign * other.y >= sign * one.y and (other.x, other.y) != (one.x, one.y)
            for other in spots
        )

    return sorted((one for one in spots if not beaten(one)), key=lambda one: (one.x, one.y))


def pareto(spots: Sequence[Spot], labels: Labels, *, lower_is_better: bool = False) -> str:
    """Quality against cost: error bars from the bounds, the Pareto-optimal spots filled, joined and labelled."""
    best = optimal(spots, lower_is_better=lower_is_better)
    with _figure(3.9, labels) as (figure, axes):
        axes.plot([one.x for one in best], [one.y for one in best], "--", color=_GREY, linewidth=1, zorder=1)
        for index, one in enumerate(spots):
            _spot(axes, one, index, filled=one in best)
        axes.margins(0.22, 0.14)
        axes.set_xlabel(labels.x)
        axes.set_ylabel(labels.y)
        axes.grid(color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
        if lower_is_better:
            axes.invert_yaxis()
        columns = max(1, 48 // max(len(one.name) + 4 for one in spots))
        markers = [bars[0] for bars in axes.containers]
        names = [one.name for one in spots]
        figure.legend(markers, names, loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.3)
        _name(figure, axes, best, spots)
        return _svg(figure, labels)


def strips(rows: Sequence[Strip], labels: Labels) -> str:
    """One row of dots a variant, over a box of its quartiles and median; warm-ups are hollow, below."""
    with _figure(0.75 + 0.62 * len(rows), labels) as (figure, axes):
        for index, row in enumerate(rows):
            _strip(axes, row, index)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(labels.x)
        axes.set_xlim(left=0, right=_end(rows))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
        _settle(figure)
        return _svg(figure, labels)


def agreement(groups: Sequence[tuple[str, Sequence[tuple[float, float]]]], labels: Labels) -> str:
    """Pairs of what was published (across) and predicted (up), a marker each group, around the line where both agree.

    Both axes are logarithmic. The band is 20 % either way.
    """
    with _figure(4.6, labels) as (figure, axes):
        values = [value for _, pairs in groups for pair in pairs for value in pair]
        ends = (0.8 * min(values), 1.25 * max(values))
        axes.plot(ends, ends, color=_GREY, linewidth=1, zorder=1)
        axes.fill_between(ends, [0.8 * end for end in ends], [1.2 * end for end in ends], color="#E5E5E5", zorder=0)
        for index, (name, pairs) in enumerate(groups):
            across, up = zip(*pairs, strict=True)
            axes.plot(across, up, MARKERS[index], color=COLOURS[index], fillstyle="none", markersize=5, label=name)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel=labels.x, ylabel=labels.y, aspect="equal")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, handletextpad=0.3)
        _settle(figure)
        return _svg(figure, labels)


def outside(rows: Sequence[Strip]) -> int:
    """How many samples lie right of the plot, which ends where nearly all of them are shown."""
    end = _end(rows)
    return sum(value > end for row in rows for value in (*row.values, *row.warmups))


def thinned(values: Sequence[float]) -> Sequence[float]:
    """At most `DOTS` of the values, evenly picked in their order."""
    step = -(-len(values) // DOTS)
    return values[:: max(1, step)]


def _end(rows: Sequence[Strip]) -> float:
    """Right end of the axis: one slow sample must not press all others into a corner."""
    import numpy as np

    return 1.25 * max(float(np.percentile(row.values, 99)) for row in rows)


def _spot(axes: Axes, one: Spot, index: int, *, filled: bool) -> None:
    colour = COLOURS[index % len(COLOURS)]
    axes.errorbar(
        [one.x],
        [one.y],
        xerr=_arms(one.x, one.x_bounds),
        yerr=_arms(one.y, one.y_bounds),
        fmt=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],  # no pair of both comes twice soon
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=7,
        markeredgewidth=1.4,
        elinewidth=1,
        capsize=3,
        label=one.name,
        zorder=3,
    )


def _arms(value: float, bounds: tuple[float, float] | None) -> list[list[float]] | None:
    """Lengths below and above; a percentile bootstrap's bounds may both lie on one side of the value."""
    return None if bounds is None else [[max(0.0, value - bounds[0])], [max(0.0, bounds[1] - value)]]


def _name(figure: Figure, axes: Axes, best: Sequence[Spot], spots: Sequence[Spot]) -> None:
    """Write each optimal spot's name beside it, where it covers neither a marker nor another name."""
    _settle(figure)
    taken = [box for one in spots for box in _covered(axes, one)] + _line_boxes(axes, best)
    for one in best:
        for place in _PLACES:
            text = axes.annotate(
                one.name, (one.x, one.y), place[:2], textcoords="offset points", ha=place[2], weight="bold"
            )
            box = text.get_window_extent()
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not box.count_overlaps(taken):
                break
            text.remove()
        else:
            continue  # no room: the legend names it
        taken.append(box)


def _covered(axes: Axes, one: Spot) -> list[Any]:
    """The boxes of a marker and of its error bars, in pixels."""
    from matplotlib.transforms import Bbox

    corners = [(one.x, one.y), *((x, one.y) for x in one.x_bounds or ()), *((one.x, y) for y in one.y_bounds or ())]
    (x, y), *ends = axes.transData.transform(corners)
    bars = [Bbox.from_extents(min(x, a) - 2, min(y, b) - 2, max(x, a) + 2, max(y, b) + 2) for a, b in ends]
    return [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5), *bars]


def _line_boxes(axes: Axes, best: Sequence[Spot]) -> list[Any]:
    """Small boxes along the line that joins the optimal spots, in pixels."""
    from matplotlib.transforms import Bbox

    ends = axes.transData.transform([(one.x, one.y) for one in best])
    steps = [step / 20 for step in range(21)]
    along = [(a + (b - a) * step) for a, b in pairwise(ends) for step in steps]
    return [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in along]


def _strip(axes: Axes, row: Strip, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    _dots(axes, thinned(row.values), index - 0.02, colour)
    if row.warmups:
        heights = [index + 0.34] * len(row.warmups)
        axes.plot(row.warmups, heights, "o", markerfacecolor="white", markeredgecolor=colour, markersize=3.4)
    axes.boxplot(
        [row.values],
        orientation="horizontal",
        positions=[index],
        widths=0.36,
        showfliers=False,
        whis=(5, 95),
        manage_ticks=False,
        medianprops={"color": "black", "linewidth": 2},
        boxprops={"color": "black", "linewidth": 0.9},
        whiskerprops={"color": "black", "linewidth": 0.9},
        capprops={"color": "black", "linewidth": 0.9},
    )


def _dots(axes: Axes, values: Sequence[float], middle: float, colour: str) -> None:
    """Dots as round strokes without length: one path, where markers would be one element each."""
    across = [middle + 0.4 * ((number * 0.618034) % 1 - 0.5) for number in range(len(values))]
    xs = [x for value in values for x in (value, value, float("nan"))]
    ys = [y for height in across for y in (height, height, float("nan"))]
    axes.plot(xs, ys, color=colour, alpha=0.45, linewidth=2.6, solid_capstyle="round")


@contextmanager
def _figure(height_in: float, labels: Labels) -> Iterator[tuple[Figure, Axes]]:
    """A figure that no global state knows; `hashsalt` makes its ids its own, and the same each time."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EdgemlError(
            "the page's plots need matplotlib, which is not installed", hint="edgeml report --markdown, or: make onnx"
        ) from error
    settings: dict[Any, Any] = {**_STYLE, "svg.hashsalt": labels.name}
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)  # keeps what measures text, where the SVG canvas would make it anew each time
        yield figure, figure.add_subplot()


def _settle(figure: Figure) -> None:
    """Place everything once and for all: a label that comes later must not move what stands."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def _svg(figure: Figure, labels: Labels) -> str:
    """The SVG element alone: named, sized by its page, and with ids that are nobody else's on that page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=_NOWHEN, transparent=True)
    text = file.getvalue()
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda tag: _owned(tag[0], labels.name), body)
    opening = body[: body.index(">") + 1]
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box, "matplotlib writes a viewBox"
    name = escape(labels.name)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" '
        f'aria-labelledby="{name}-title {name}-desc" style="stroke-linejoin: round">'
        f'<title id="{name}-title">{escape(labels.title)}</title>'
        f'<desc id="{name}-desc">{escape(labels.description)}</desc>'
    )
    return head + re.sub(r"\s*\n\s*", "\n", body[len(opening) :]).strip()


def _owned(tag: str, name: str) -> str:
    """A tag whose ids, and what refers to ids, begin with the figure's name."""
    return re.sub(r'( id="|href="#|url\(#)', lambda found: f"{found[0]}{name}-", tag)
