"""The verb: which reports are on the page, where it is written, and what never is on it unasked."""

from __future__ import annotations

import getpass
import json
import re
import socket
from pathlib import Path

import msgspec
import pytest

from browser import executable, open_page
from edgeml.errors import EdgemlError
from edgeml.examples import examples
from edgeml.measurements import differences, measurements, undefined
from edgeml.report import Wanted, report
from edgeml.scores import unscored
from edgeml.store import Store
from edgeml.types import Report, Run
from edgeml.verdicts import verdicts
from edgeml.verdicts.limits import limit_of
from edgeml_runtime.tasks.text_generation import _warnings
from edgeml_runtime.types import Generate, Job
from tiny.commands import inside
from tiny.reports import ANSWERS, BASE, EXAMPLES, HERE, MODEL, SMALL, TEXTS, a_run, keep, verdict

ALL, SHOWN = Wanted(), Wanted(show_inputs=True)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home" / "erika" / "artifacts")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "home" / "erika" / "kunden" / "lines.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def written(store, wanted=ALL):
    page = report(MODEL, wanted, store=store)
    return "".join(Path(path).read_text(encoding="utf-8") for path in (page.html, page.markdown))


def words(store, wanted=ALL):
    """The page without its plots, which take most of the time."""
    page = report(MODEL, wanted, store=store, only_markdown=True)
    return Path(page.markdown).read_text(encoding="utf-8")


def test_the_page_lies_beside_the_model_in_both_forms_and_is_small(store):
    keep(store)

    page = report(MODEL, Wanted(), store=store)

    folder = store.root / MODEL
    assert (page.html, page.markdown) == (str(folder / "report.html"), str(folder / "report.md"))
    assert 10_000 < (folder / "report.html").stat().st_size < 1_000_000
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["report.html", "report.md"]
    assert page.reports == ("text-generation.laptop.20261126T100000.000+0000.report.json",)


def test_the_same_measurements_give_the_same_bytes(store):
    keep(store)

    assert written(store) == written(store)


def test_the_newest_report_of_a_task_and_target_is_shown(store):
    keep(store, started="2026-11-25T10:00:00.000+00:00", report={"warnings": ("the old one",)})
    keep(store, started="2026-11-26T10:00:00.000+00:00", report={"warnings": ("the new one",)})

    text = words(store)

    assert "the new one" in text
    assert "the old one" not in text


def test_where_nothing_was_measured_the_hint_is_to_bench(store):
    store.measurements_folder(MODEL).mkdir(parents=True)
    (store.measurements_folder(MODEL) / "onnx-fp32.text-generation.laptop.20260101T000000.json").write_text("{}")

    with pytest.raises(EdgemlError, match="no bench of tiny is kept") as caught:
        report(MODEL, Wanted(), store=store)
    assert caught.value.hint == "edgeml bench tiny --data FILE"


def test_a_task_or_target_that_was_not_measured_is_refused_with_those_that_were(store):
    keep(store)

    for wanted in (Wanted(task="perplexity"), Wanted(target="pi5")):
        with pytest.raises(EdgemlError, match=r"no report of (perplexity|pi5)") as caught:
            report(MODEL, wanted, store=store)
        assert caught.value.hint == "there is text-generation on laptop"


def test_by_default_neither_text_nor_answer_nor_path_nor_name_leaves_the_house(store, data, tmp_path):
    told = (f"cannot open {data}: no such file", f"see {tmp_path}/my files/log.txt", "read /opt/kunden/acme/x.csv")
    keep(
        store,
        data=data,
        report={"examples": EXAMPLES, "warnings": told, "verdicts": (verdict("fail", reason=told[0]),)},
    )

    text = written(store)

    for secret in (*TEXTS, *ANSWERS.values(), "Erika", "Muster", "62701", "Beverly", "Doe", "Jane said no", "erika"):
        assert secret not in text
    assert str(tmp_path) not in text
    assert "/opt" not in text
    assert "\N{HORIZONTAL ELLIPSIS}/x.csv" in text
    seen = re.sub(r"<[^>]*>", " ", text)
    assert not re.search(r"(?<![\w.:/])/(?!sys/|proc/|dev/)\w+/\w+", seen)
    assert not re.search(rf"\b({re.escape(socket.gethostname())}|{re.escape(getpass.getuser())})\b", seen)


CANARY = "Erika Mustermann, IBAN DE02 1203"
_ANSWERS = {  # what a model may answer, by task: it may say anything where it says anything of its own
    "text-generation": [{"text": json.dumps({f"{CANARY} {row}": CANARY}), "finish_reason": "stop", "tokens": 3,
                         "ungrounded": [[f"{CANARY}[{row}].zip", CANARY]]} for row in range(12)],
    "text2text-generation": [{"text": f"{CANARY} {row}", "finish_reason": "length", "tokens": 3} for row in range(12)],
    "text-classification": [{"label": f"{CANARY} {row % 3}", "score": 0.5} for row in range(12)],
    "token-classification": [{"tags": [f"B-{CANARY} {row}", "O"]} for row in range(12)],
    "feature-extraction": [{"nearest": (row + 1) % 12} for row in range(12)],
    "sentence-similarity": [row / 12 for row in range(12)],
}  # fmt: skip
_GOLD = {"token-classification": (f"I-{CANARY}", "O"), "sentence-similarity": 1.0}
# Slices are told by their names, as they are asked for.
_TOLD = {"variant", "variant_sha256", "target", "how", "task", "started", "dataset", "dataset_sha256", "slices"}
_TOLD |= {"reference_sha256"}
_NUMBERS = {"seed", "repeats", "warmups", "batch_size", "context_tokens", "limit", "numbers", "sweep", "size_bytes"}


def full_of_canaries(task, variant, answers, *, started, told):
    """A run with the canary in every field that data or answers can come into; `told` are its worker's warnings."""
    base = a_run(variant, started=started)
    outcome = msgspec.structs.replace(base.outcome, answers=tuple(answers), warnings=told)
    return msgspec.structs.replace(
        base,
        task=task,
        outcome=outcome,
        processes=(outcome,),
        gold=tuple(_GOLD.get(task, f"{CANARY} {row}") for row in range(12)),
        generate=Generate(
            max_new_tokens=len(started),
            instruction=f"{started} {CANARY}",
            schema={"title": CANARY, "enum": [CANARY, started], "properties": {"zip": {"const": CANARY}}},
        ),
        slices={"language": ("de", "en") * 6},
        dataset_path=f"/srv/{CANARY}/{CANARY}.jsonl",
        columns={"text": f"{CANARY} {started}"},
    )


@pytest.mark.parametrize("task", sorted(_ANSWERS))
def test_no_field_of_a_run_carries_texts_or_answers_to_the_page(task, store):
    assert set(Run.__struct_fields__) == _TOLD | _NUMBERS | {
        "outcome", "processes", "gold", "generate", "dataset_path", "columns",
    }  # fmt: skip
    for started in ("2026-11-20T10:00:00.000+00:00", "2026-11-26T10:00:00.000+00:00Z"):
        answers = _ANSWERS[task]
        generate = Generate(schema={"properties": {"zip": {}}} if "0Z" in started else None)
        told = tuple(_warnings(Silent(), answers, a_job(task, generate))) if "text" in str(answers[0]) else ()
        runs = [
            full_of_canaries(task, SMALL, answers, started=started, told=told),
            full_of_canaries(task, BASE, [*answers[1:], answers[0]], started=started, told=told),
        ]
        for run in runs:
            store.add_run(run)
        store.add_report(MODEL, report_of(runs, started))

    text = (written if task == "text-generation" else words)(store)  # plots take most of the time

    assert "language" in text
    assert "another instruction" in text
    assert "onnx-int8, row" in text
    for secret in ("Erika", "Muster", "IBAN", "DE02", "1203"):
        assert secret not in text


class Silent:
    """A decoder as its warnings know it."""

    omits_chat_template = False

    def generate(self):
        """Never asked."""


def a_job(task, generate):
    return Job(variant="x", task=task, target="laptop", threads=1, warmups=0, repeats=0, seed=1, generate=generate)


def report_of(runs, started):
    """What bench makes of a variant's run and its baseline's."""
    small, base = runs
    absent = [*undefined(small, base), *unscored(small.task, small.gold), *unscored(small.task, ())]
    return Report(
        started=started,
        measurements=(
            *measurements(base, size_bytes=2, baseline=None),
            *measurements(small, size_bytes=1, baseline=base),
        ),
        differences=tuple(differences(small, base)),
        examples=tuple(examples(small, base)),
        verdicts=tuple(verdicts(small, base, [limit_of("max-drop", "1%")], sizes=(1, 2))),
        absent=tuple(msgspec.structs.replace(one, variant=SMALL) for one in absent),
        warnings=tuple(f"{run.variant}: {text}" for run in runs for text in run.outcome.warnings),
    )


def test_row_numbers_and_what_changed_are_told_without_the_answer(store, data):
    keep(store, data=data, report={"examples": EXAMPLES})

    text = words(store)

    assert "onnx-int8, row 1: the answer differs from that of onnx-fp32, which is right" in text
    assert "onnx-int8, row 2: zip is not in the input" in text  # the schema's own name
    assert "onnx-int8, row 3: a value of the answer is not in the input" in text  # a name that the model made up
    assert "onnx-int8, row 3: the answer is not of the form that was asked for" in text


def test_inputs_and_answers_are_shown_on_request_with_a_warning(store, data):
    keep(store, data=data, report={"examples": EXAMPLES})

    text = written(store, SHOWN)

    assert TEXTS[0] in text
    assert "E. Muster" in text
    assert "pass it on only to people who may read those" in text


def test_inputs_are_refused_when_the_data_changed(store, data):
    keep(store, data=data, report={"examples": EXAMPLES})
    data.write_text(json.dumps({"text": "other"}) + "\n")

    with pytest.raises(EdgemlError, match="is not what was measured") as caught:
        report(MODEL, SHOWN, store=store)
    assert "leave out --show-inputs" in caught.value.hint


def test_inputs_are_refused_when_the_run_that_knows_the_data_is_gone(store, data):
    keep(store, data=data)
    for path in store.measurements_folder(MODEL).glob("onnx-*"):
        path.unlink()

    with pytest.raises(EdgemlError, match="are gone"):
        report(MODEL, SHOWN, store=store)
    assert "The raw samples of onnx-fp32 and onnx-int8 are gone" in words(store)


def test_earlier_runs_of_the_same_variant_and_machine_are_compared(store):
    keep(store, started="2026-11-20T10:00:00.000+00:00", faster=2.0)
    keep(store)

    assert "onnx-int8, against 2026-11-20 10:00: " in words(store)
    assert "latency, median 3.0 ms, it was 1.5 ms" in re.sub(r"(\d\.\d)0 ms", r"\1 ms", words(store))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"here": msgspec.structs.replace(HERE, threads=4)}, "threads 2, not 4"),
        (
            {"here": msgspec.structs.replace(HERE, libraries={"onnxruntime": "1.31.0"})},
            "onnxruntime 1.32.0, not 1.31.0",
        ),
        ({"weights": "x" * 64}, "other weights under the same name"),
    ],
)
def test_earlier_runs_under_other_conditions_are_not_compared_but_named(store, changed, named):
    keep(store, started="2026-11-20T10:00:00.000+00:00", **changed)
    keep(store)

    text = words(store)

    assert "onnx-int8: not compared with the run of 2026-11-20 10:00: " in text
    assert named in text
    assert "it was" not in text


def test_the_file_may_be_named_and_an_unfitting_name_is_refused(store, tmp_path):
    keep(store)

    assert report(MODEL, Wanted(), store=store, out=tmp_path / "a" / "page.html").markdown == str(
        tmp_path / "a/page.md"
    )
    alone = report(MODEL, Wanted(), store=store, out=tmp_path / "pr.md", only_markdown=True)
    assert (alone.html, alone.markdown) == (None, str(tmp_path / "pr.md"))
    with pytest.raises(EdgemlError, match="would hold HTML"):
        report(MODEL, Wanted(), store=store, out=tmp_path / "x.md")
    with pytest.raises(EdgemlError, match="is a folder"):
        report(MODEL, Wanted(), store=store, out=tmp_path)


def test_without_the_plotting_library_the_hint_is_the_markdown(store, monkeypatch):
    keep(store)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)

    with pytest.raises(EdgemlError, match="matplotlib, which is not installed") as caught:
        report(MODEL, Wanted(), store=store)
    assert "--markdown" in caught.value.hint
    assert not list((store.root / MODEL).glob("report*"))
    assert report(MODEL, Wanted(), store=store, only_markdown=True).html is None


def test_the_command_says_where_the_page_is_and_how_to_look_at_it(store):
    keep(store)

    done = inside("report", MODEL, "--artifacts", store.root)
    as_json = inside("report", MODEL, "--artifacts", store.root, "--markdown", "--json")

    assert done.out.splitlines() == [str(store.root / MODEL / name) for name in ("report.html", "report.md")]
    assert done.steps[0].startswith("python3 -m webbrowser file:///")
    assert json.loads(as_json.out) == {
        "schema": "edgeml.page/1",
        "model": MODEL,
        "markdown": str(store.root / MODEL / "report.md"),
        "reports": ["text-generation.laptop.20261126T100000.000+0000.report.json"],
    }


@pytest.fixture
def page(store):
    verdicts = (verdict("pass"), verdict("cannot tell", n_needed=2300, reason="the interval holds the bound"))
    keep(store, report={"verdicts": verdicts, "examples": EXAMPLES, "warnings": ("<script>alert(1)</script>",)})
    return report(MODEL, Wanted(), store=store).html


@pytest.mark.real
@pytest.mark.skipif(executable() is None, reason="no chromium or chrome is installed")
def test_a_real_browser_shows_the_page_without_any_request(page):
    with open_page(page) as tab:
        text = tab.text()
        assert "onnx-int8 passes: exact match" in text
        assert "Cannot tell whether onnx-int8 passes" in text
        assert "<script>alert(1)</script>" in text
        assert len(tab.requested) == 1
        assert tab.requested[0].startswith("file:///")
        assert tab.errors == []
        assert tab.evaluate("document.scripts.length") == 0
        ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
        assert len(set(ids)) == len(ids) > 50


@pytest.mark.real
@pytest.mark.skipif(executable() is None, reason="no chromium or chrome is installed")
def test_choosing_another_axis_shows_the_other_plot(page):
    with open_page(page) as tab:
        assert tab.evaluate(_VISIBLE) == ["Exact match against latency", "Latency of single inferences"]
        tab.click("label[for=p1-quality-2]")
        assert tab.evaluate(_VISIBLE) == ["Exact match against size", "Latency of single inferences"]


@pytest.mark.real
@pytest.mark.skipif(executable() is None, reason="no chromium or chrome is installed")
def test_a_phone_scrolls_tables_but_not_the_page_and_print_holds_every_plot(page):
    with open_page(page, width=400, height=800) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        tab("Emulation.setEmulatedMedia", media="print")
        assert len(tab.evaluate(_VISIBLE)) == 4
        assert tab.pdf().startswith(b"%PDF")


_VISIBLE = (
    "[...document.querySelectorAll('figure')].filter(one => one.offsetHeight)"
    ".map(one => one.querySelector('title').textContent)"
)
