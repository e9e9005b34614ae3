"""Plots: the same bytes each time, every text escaped, and what is optimal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from edgeml.plots import DOTS, Labels, Spot, Strip, optimal, outside, pareto, strips, thinned

_ROOT = Path(__file__).parent.parent
LABELS = Labels(name="p1", title="Quality", description="a cheap one and a good one", x="latency, ms", y="quality")
SPOTS = (
    Spot(name="good", x=6.0, y=0.90, x_bounds=(5.8, 6.2), y_bounds=(0.85, 0.95)),
    Spot(name="cheap", x=3.0, y=0.85, y_bounds=(0.80, 0.86)),
    Spot(name="beaten", x=7.0, y=0.84),
)
STRIPS = (
    Strip(name="good", values=(5.5, 6.0, 6.5) * 5, warmups=(9.0,)),
    Strip(name="cheap", values=(2.5, 3.0, 3.5) * 5),
)


def names(spots):
    return [spot.name for spot in spots]


def texts(svg):
    return [one.text for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("}text")]


def test_a_spot_is_optimal_if_no_other_is_at_least_as_good_and_as_cheap():
    assert names(optimal(SPOTS)) == ["cheap", "good"]
    assert names(optimal(SPOTS, lower_is_better=True)) == ["cheap", "beaten"]
    assert names(optimal([Spot(name="a", x=1, y=1), Spot(name="b", x=1, y=1), Spot(name="c", x=1, y=0)])) == ["a", "b"]


def test_every_variant_is_named_and_the_optimal_ones_twice():
    shown = texts(pareto(SPOTS, LABELS))

    assert {name: shown.count(name) for name in ("good", "cheap", "beaten")} == {"good": 2, "cheap": 2, "beaten": 1}


def test_a_plot_is_the_same_in_another_process():
    code = "import sys; sys.path.insert(0, 'tests'); import test_plots as t; print(t.pareto(t.SPOTS, t.LABELS), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT)

    assert done.stdout == pareto(SPOTS, LABELS)
    assert "<dc:date>" not in done.stdout


def test_ids_of_two_plots_on_a_page_never_meet():
    other = Labels(**{**{name: getattr(LABELS, name) for name in LABELS.__struct_fields__}, "name": "p2"})
    first, second = (set(re.findall(r' id="([^"]+)"', pareto(SPOTS, labels))) for labels in (LABELS, other))

    assert first
    assert not first & second
    for ids, labels in ((first, LABELS), (second, other)):
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', pareto(SPOTS, labels))
        assert used
        assert set(used) <= ids


def test_names_are_escaped_and_stay_text():
    nasty = '<script>alert("x")</script>'
    svg = strips((Strip(name=nasty, values=(1.0,) * 12),), LABELS)

    assert "<script" not in svg
    assert nasty in texts(svg)


def test_a_plot_says_what_it_shows_to_those_who_cannot_see_it():
    root = ElementTree.fromstring(strips(STRIPS, LABELS))

    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "p1-title p1-desc"
    assert [one.text for one in root[:2]] == ["Quality", "a cheap one and a good one"]
    assert "width" not in root.attrib


def test_many_samples_are_thinned_evenly_and_slow_ones_are_counted_rather_than_shown():
    many = tuple(float(value) for value in range(1000))

    assert len(thinned(many)) <= DOTS
    assert thinned(many)[:2] == (0.0, 4.0)
    assert outside([Strip(name="a", values=(1.0,) * 990 + (100.0,), warmups=(50.0,))]) == 2
    assert len(strips([Strip(name=str(number), values=many) for number in range(8)], LABELS)) < 300_000


def test_where_less_is_better_less_is_drawn_higher():
    def ticks(**more):
        found = re.findall(r'text-anchor: end" x="[^"]+" y="([^"]+)"[^>]*>(0\.\d+)<', pareto(SPOTS, LABELS, **more))
        return [value for _, value in sorted((float(y), value) for y, value in found)]  # from the top down

    assert len(ticks()) > 2
    assert ticks() == sorted(ticks(), reverse=True)
    assert ticks(lower_is_better=True) == sorted(ticks())


def test_a_single_variant_with_a_single_figure_can_be_drawn():
    assert "alone" in texts(pareto([Spot(name="alone", x=1.0, y=1.0)], LABELS))
