"""Findings in words and tables, and both renderings of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import pytest

from edgeml.page.blocks import Cell, Document, Part, Section, Table, Text
from edgeml.page.charts import tradeoffs
from edgeml.page.document import document, without_paths
from edgeml.page.figures import figures, slices
from edgeml.page.finding import Finding, quality_of
from edgeml.page.html import html
from edgeml.page.markdown import markdown
from edgeml.page.provenance import missing, provenance
from edgeml.page.verdicts import change, verdicts
from edgeml.page.words import digits, number
from edgeml.types import Verdict
from tiny.reports import BASE, MODEL, SMALL, a_report, a_run, difference, measured, verdict

STARTED = "2026-11-26T10:00:00.000+00:00"
NASTY = '<script>alert("x")</script>'


def a_finding(**report):
    runs = [a_run(variant, started=STARTED) for variant in (BASE, SMALL)]
    made = a_report(runs, started=STARTED, **report)
    return Finding(model=MODEL, report=made, runs={run.file_name: run for run in runs})


def said(*found):
    """Head and body of verdicts."""
    return [f"{one.head}. {one.body}" for one in verdicts(a_finding(verdicts=found))[1 : len(found) + 1]]


def a_page(**texts):
    """A page with one text in every place."""
    text = texts.get("text", "x")
    table = Table(caption=text, titles=(text, text), rows=((Cell(text=text), Cell(text=text, notes=(text,))),))
    quoted = Table(caption="q", titles=("q",), rows=((Cell(text=text, quoted=True),),))
    section = Section(title=text, blocks=(Text(text=text), table, quoted))
    return Document(
        title=text, summary=text, verdicts=section, parts=(Part(title=text, sections=(section,)),), footer=text
    )


def test_a_verdict_says_what_changed_what_was_allowed_and_how_sure_that_is():
    assert said(verdict("pass")) == [
        "onnx-int8 passes: exact match. Fell by 0.0007 against onnx-fp32, a fall of at most 0.0087 allowed; "
        "95 % interval \N{MINUS SIGN}0.0021 to +0.0006; n = 1379."
    ]


def test_a_sentence_that_begins_with_a_name_keeps_its_spelling():
    unknown = verdict("cannot tell", difference=None, low=None, high=None, reason=f"{SMALL} has no energy")
    (text,) = said(unknown)

    assert text.endswith(f" {SMALL} has no energy.")


def test_cannot_tell_says_why_and_how_many_rows_would():
    (text,) = said(verdict("cannot tell", n_needed=2300, reason="the interval holds the bound", p_value=0.034))

    assert text.startswith("Cannot tell whether onnx-int8 passes: exact match. Fell")
    assert text.endswith(
        "exact McNemar p = 0.034. The interval holds the bound. About 2300 rows in all would probably decide."
    )


def test_the_outcome_of_each_variant_is_said_first_and_its_worst_verdict_decides():
    found = (verdict("pass"), verdict("fail"), msgspec.structs.replace(verdict("cannot tell"), variant=BASE))

    assert verdicts(a_finding(verdicts=found))[0].text == "onnx-int8 fails. Cannot tell of onnx-fp32."


def test_failures_come_first_and_slices_are_named():
    texts = said(verdict("pass"), verdict("cannot tell"), verdict("fail", slice="language=de"))

    assert [text.partition(":")[0] for text in texts] == [
        "onnx-int8 fails",
        "Cannot tell whether onnx-int8 passes",
        "onnx-int8 passes",
    ]
    assert "exact match, language=de" in texts[0]


def cost(word, metric, unit, **figures):
    return Verdict(
        variant=SMALL, target="laptop", metric=metric, statistic="p95", unit=unit, verdict=word, n=5, level=0.95,
        method="a fact", **figures,
    )  # fmt: skip


def test_a_cost_is_held_against_its_bound_in_units_that_people_read():
    assert said(cost("pass", "size", "byte", value=23.3e6, low=23.3e6, high=23.3e6, bound=25e6)) == [
        "onnx-int8 passes: size, p95. 23.3 MB, at most 25 MB allowed; n = 5."
    ]


def test_what_must_not_be_less_is_held_against_the_least_that_passes():
    [text] = said(cost("pass", "parity.same_top", "share", value=0.9583, bound=0.85))
    assert "0.9583, at least 0.85 allowed" in text


def test_a_saving_that_is_demanded_is_told_from_a_rise_that_is_allowed():
    figures = {"baseline": BASE, "difference": -10.0, "low": -12.0, "high": -8.0}

    assert "a fall of at least 50.0 MiB demanded" in said(cost("fail", "memory_peak", "MiB", bound=-50.0, **figures))[0]
    assert "a rise of at most 5.0 MiB allowed" in said(cost("pass", "memory_peak", "MiB", bound=5.0, **figures))[0]


def test_a_verdict_without_a_figure_gives_only_its_reason():
    unknown = cost("cannot tell", "latency", "of the metric", bound=5.0, reason="its samples are marked: throttled")

    assert said(unknown) == ["Cannot tell whether onnx-int8 passes: latency, p95. Its samples are marked: throttled."]


def test_without_a_bound_the_difference_is_said_in_words():
    ask, changes = verdicts(a_finding())

    assert "no verdict" in ask.text
    assert changes.items == (
        "onnx-int8: exact match is 0.050 lower than that of onnx-fp32 "
        "(95 % interval \N{MINUS SIGN}0.090 to \N{MINUS SIGN}0.010; n = 21)",
    )


def test_the_worst_slice_is_named_and_marked_in_words():
    listing, table = slices(a_finding())

    assert listing.items[0].startswith("Poorest of onnx-fp32: language=de")
    assert listing.items[1].startswith(
        "Loses most: onnx-int8: exact match is 0.20 lower than that of onnx-fp32 on rows"
    )
    by_slice = {row[0].text: row for row in table.rows}
    assert "loses most" in by_slice["de"][2].notes
    assert "loses most" not in by_slice["en"][2].notes
    assert by_slice["de"][0].notes == ("n = 21",)


def test_a_figure_that_is_missing_estimated_or_in_doubt_says_so():
    run = a_run(BASE, started=STARTED)
    doubtful = measured(run, "latency", "p99", "ms", (9.0,), marks=("the machine drifted",))
    guessed = msgspec.structs.replace(measured(run, "energy", "mean", "J", (1.0,)), how="estimated")
    finding = a_finding()
    more = msgspec.structs.replace(finding.report, measurements=(*finding.report.measurements, doubtful, guessed))

    table, _, doubts = figures(msgspec.structs.replace(finding, report=more))

    rows = {row[0].text: row[1:] for row in table.rows}
    assert rows["latency, p99"][0].notes == ("in doubt",)
    assert rows["energy"][0].notes == ("estimated",)
    assert rows["energy"][1].notes == ("not measured",)
    assert doubts.items == ("In doubt, onnx-fp32: the machine drifted (latency)",)


def test_without_right_answers_likeness_to_the_baseline_is_the_quality():
    finding = a_finding()
    kept = tuple(one for one in finding.report.measurements if one.metric != "exact_match")
    run = a_run(SMALL, started=STARTED)
    alike = measured(run, "fidelity.agreement", "mean", "1", (0.97, 0.95, 0.99))

    assert quality_of(finding.report) == "exact_match"
    assert quality_of(msgspec.structs.replace(finding.report, measurements=(*kept, alike))) == "fidelity.agreement"
    assert quality_of(msgspec.structs.replace(finding.report, measurements=kept)) is None


def test_only_costs_that_were_measured_can_be_chosen():
    (choice,) = tradeoffs(a_finding(), "p1", drawn=False)

    assert [panel.label for panel in choice.panels] == ["latency", "size", "memory"]
    assert choice.panels[0].caption == "By latency, no variant is both better and cheaper than onnx-int8 or onnx-fp32."


def test_a_variant_without_the_figure_is_named_rather_than_drawn():
    finding = a_finding()
    kept = [one for one in finding.report.measurements if (one.variant, one.metric) != (BASE, "exact_match")]
    report = msgspec.structs.replace(finding.report, measurements=tuple(kept))

    (choice,) = tradeoffs(msgspec.structs.replace(finding, report=report), "p1", drawn=False)

    assert choice.panels[0].caption.endswith("Not drawn, for want of a figure: onnx-fp32.")


def test_what_was_not_measured_is_said_once_for_all_variants():
    (listing,) = missing(a_finding(warnings=("mind this", "mind this")))

    assert listing.items == ("energy: not measured, no sensor (to do: edgeml doctor)", "Warning: mind this")


def test_provenance_holds_machine_versions_data_seed_and_how_each_figure_was_had():
    words = [cell.text for table in provenance(a_finding()) for row in table.rows for cell in row]

    for wanted in ("2 cores, 2 threads used", "1.32.0", "d" * 64, "20", "w" * 12, "how latency was had"):
        assert wanted in words


def test_variants_that_ran_on_unequal_machines_have_a_table_each():
    here = a_run(SMALL, started=STARTED).outcome.environment
    other = a_run(SMALL, started=STARTED, here=msgspec.structs.replace(here, threads=1))
    report = a_report([a_run(BASE, started=STARTED), other], started=STARTED)

    tables = provenance(Finding(model=MODEL, report=report, runs={}))

    captions = [table.caption for table in tables]
    assert captions[:2] == ["Machine and software of onnx-fp32", "Machine and software of onnx-int8"]


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (0.7632, (0.720, 0.806), "0.763"),
        (3.4217, (3.416, 3.427), "3.4217"),
        (90.71, (None, None), "90.7"),
        (0.99968, (None, None), "0.9997"),
        (-0.0004, (-0.02, 0.02), "0.000"),
        (-2.5, (None, None), "\N{MINUS SIGN}2.50"),
        (1118.4, (None, None), "1118"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_warrants(value, bounds, text):
    assert number(value, digits(value, *bounds)) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("cannot read /home/alice/a b/x.csv", "cannot read \N{HORIZONTAL ELLIPSIS}/x.csv"),
        ("at /home/alice/a b/kunde/x.csv", "at \N{HORIZONTAL ELLIPSIS}/x.csv"),
        ("see '/opt/kunde/x.csv': it is", "see '\N{HORIZONTAL ELLIPSIS}/x.csv': it is"),
        ("log:/opt/kunde/x.csv", "log:\N{HORIZONTAL ELLIPSIS}/x.csv"),
        ("file:///opt/kunde/x.csv", "file://\N{HORIZONTAL ELLIPSIS}/x.csv"),
        ("in ../../kunde/x.csv, ./kunde/y.csv", "in \N{HORIZONTAL ELLIPSIS}/x.csv, \N{HORIZONTAL ELLIPSIS}/y.csv"),
        ("in ~/kunde/x.csv", "in \N{HORIZONTAL ELLIPSIS}/x.csv"),
        ("/sys/class/powercap is missing", "/sys/class/powercap is missing"),
        ("290 token/s and/or https://example.org/a/b", "290 token/s and/or https://example.org/a/b"),
    ],
)
def test_paths_are_cut_to_their_last_name_but_those_of_every_linux(text, clean):
    assert without_paths(text, ["/home/alice/a b", "/"]) == clean


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_in_html_every_text_stays_text():
    page = html(a_page(text=NASTY))

    assert "<script" not in page
    assert "".join(Tags(page).words).count(NASTY) > 10


def test_the_page_loads_nothing_and_forbids_it():
    page = Tags(html(document(MODEL, [a_finding(verdicts=(verdict("fail"),))], private=[])))

    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert not [attrs for _, attrs in page.tags if {"src", "onclick", "onload"} & attrs.keys()]
    links = [attrs["xlink:href"] for _, attrs in page.tags if "xlink:href" in attrs]
    assert links
    assert all(link.startswith("#") for link in links)


def test_headings_nest_and_tables_say_what_their_headers_head():
    page = Tags(html(document(MODEL, [a_finding()], private=[], drawn=False)))

    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")


def test_a_verdict_is_told_by_its_word_and_a_shape_of_its_own():
    verdicts_ = tuple(map(verdict, ("fail", "cannot tell", "pass")))
    page = html(document(MODEL, [a_finding(verdicts=verdicts_)], private=[], drawn=False))
    words = markdown(document(MODEL, [a_finding(verdicts=verdicts_)], private=[], drawn=False))

    shapes = re.findall(r'<div class="statement \w+"><svg.*?</svg>', page.replace("\n", ""))
    assert ["<rect" in one for one in shapes] == [True, False, False]
    assert ["<circle" in one for one in shapes] == [False, False, True]
    for shape, word in (("\N{BALLOT X}", "fails"), ("?", "Cannot tell"), ("\N{CHECK MARK}", "passes")):
        assert re.search(rf"^{re.escape(shape)} \*\*.*{word}", words, re.MULTILINE)


def test_in_markdown_every_text_stays_text_and_nobody_is_called():
    text = f"a|b *c* _d_ `e` [f](g) {NASTY} @erika\nsecond"
    page = markdown(a_page(text=text))

    assert "<script" not in page
    assert "@erika" not in re.sub("<code>.*?</code>", "", page)
    assert "a|b" not in page
    assert "\\*c\\*" in page
    assert "<code>a&#124;b &#42;c&#42;" in page
    rows = [line for line in page.splitlines() if line.startswith(("| a", "| <code>"))]
    assert sorted(len(re.findall(r"(?<!\\)\|", row)) for row in rows) == [2, 2, 3, 3, 3, 3]


def test_two_tasks_have_their_verdicts_together_at_the_top():
    one = a_finding(verdicts=(verdict("pass"),))
    page = document(MODEL, [one, one], private=[], drawn=False)

    texts = [block.text for block in page.verdicts.blocks if isinstance(block, Text)]
    assert texts == ["text-generation on laptop:", "onnx-int8 passes."] * 2
    assert len(page.parts) == 2


def test_a_difference_that_is_the_same_on_every_row_has_no_interval_to_tell():
    assert change(difference(0.0, 0.0, 0.0), a_finding()).endswith("from onnx-fp32 (n = 21)")
