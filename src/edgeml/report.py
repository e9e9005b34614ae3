"""Verb: put what was measured of a model on one page, in HTML and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeml.dataset import dataset_for
from edgeml.errors import EdgemlError
from edgeml.page.document import document
from edgeml.page.finding import Finding, Past
from edgeml.page.html import html
from edgeml.page.markdown import markdown
from edgeml.store import Store, write_text
from edgeml.types import Page, Report, Run
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Record


class Wanted(Record, frozen=True, kw_only=True):
    """What of a model's reports is put on the page: all, or those of one task or target; with inputs and answers."""

    task: str | None = None
    target: str | None = None
    show_inputs: bool = False


def report(
    text: str | None, wanted: Wanted, *, store: Store, out: Path | None = None, only_markdown: bool = False
) -> Page:
    """Write the page of the newest report of each task and target, beside the model or where `out` says.

    `text` names the model; left out, it is the newest. Raises EdgemlError where nothing was measured, or where inputs
    are wanted and the data is not what was measured.
    """
    model = _model(text, store)
    newest = _newest(model, wanted, store)
    findings = [_finding(model, reports, wanted, store) for reports in newest]
    html_path, markdown_path = _paths(model, store, out, only_markdown=only_markdown)
    private = _private(findings, store)
    words = document(model, findings, private=private, drawn=False)
    written = {markdown_path: markdown(words)}
    if html_path:
        written[html_path] = html(document(model, findings, private=private))
    for path, content in written.items():
        write_text(path, content)
    return Page(
        model=model,
        html=str(html_path) if html_path else None,
        markdown=str(markdown_path),
        reports=tuple(reports[0].file_name for reports in newest),
        shows_inputs=wanted.show_inputs,
    )


def _model(text: str | None, store: Store) -> str:
    """A model's name; its record may be gone, with its measurements still there."""
    measured = text and "/" not in text and store.measurements_folder(text).is_dir()
    return text if text and measured else store.model(text).name


def _newest(model: str, wanted: Wanted, store: Store) -> list[list[Report]]:
    """The reports of each task, target and way to have figures of it that is wanted, newest first."""
    found: dict[tuple[str, str, str], list[Report]] = {}
    for one in store.reports(model):
        first = one.measurements[0]
        found.setdefault((first.task, first.target, "" if first.how == "measured" else first.how), []).append(one)
    if not found:
        raise EdgemlError(f"nothing to report: no bench of {model} is kept", hint=f"edgeml bench {model} --data FILE")
    kept = [
        reports
        for (task, target, _), reports in sorted(found.items())
        if wanted.task in (None, task) and wanted.target in (None, target)
    ]
    if not kept:
        asked = " on ".join(filter(None, (wanted.task, wanted.target)))
        known = ", ".join(dict.fromkeys(f"{task} on {target}" for task, target, _ in sorted(found)))
        raise EdgemlError(f"no report of {asked}", hint=f"there is {known}")
    return kept


def _finding(model: str, reports: Sequence[Report], wanted: Wanted, store: Store) -> Finding:
    newest, *past = reports
    runs = _runs(model, newest, store)
    return Finding(
        model=model,
        report=newest,
        runs=runs,
        past=tuple(Past(report=one, runs=_runs(model, one, store)) for one in past),
        inputs=_inputs(newest, runs.values()) if wanted.show_inputs else None,
    )


def _runs(model: str, of: Report, store: Store) -> dict[str, Run]:
    """The runs behind a report by file name, but for those that somebody removed."""
    names = dict.fromkeys(one.provenance.get("run", "") for one in of.measurements)
    folder = store.measurements_folder(model)
    return {name: store.run(model, name) for name in names if name and (folder / Path(name).name).is_file()}


def _inputs(of: Report, runs: Iterable[Run]) -> tuple[str, ...]:
    """The texts of the data as it was measured, a row each."""
    run = next(iter(runs), None)
    if run is None:
        raise EdgemlError(
            "the runs that say where the data is are gone", hint="edgeml bench again, or no --show-inputs"
        )
    path = Path(run.dataset_path) if run.dataset_path else None
    data = dataset_for(run.task, path, run.columns, limit=run.limit)
    if data.sha256 != of.measurements[0].provenance.get("dataset_sha256"):
        where = path or "the data"
        raise EdgemlError(f"{where} is not what was measured", hint="edgeml bench again, or leave out --show-inputs")
    columns = task_of(run.task).COLUMNS
    return tuple("\n".join(_as_text(column, row[column]) for column in columns) for row in data.rows)


def _as_text(column: str, value: Any) -> str:
    """One cell of the data as it may be read: tokens side by side, an image's file by its name."""
    if column == "file":
        return Path(str(value)).name
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _paths(model: str, store: Store, out: Path | None, *, only_markdown: bool) -> tuple[Path | None, Path]:
    goal = out or store.root / model / ("report.md" if only_markdown else "report.html")
    if goal.is_dir():
        raise EdgemlError(f"{goal} is a folder", hint="name a file: --out FILE")
    if only_markdown:
        return None, goal
    if goal.suffix.lower() == ".md":
        raise EdgemlError(f"{goal} would hold HTML", hint="add --markdown, or name it .html")
    return goal, goal.with_suffix(".md")


def _private(findings: Sequence[Finding], store: Store) -> list[str]:
    """Folders of this machine that texts may name: they say who works where."""
    paths = [run.dataset_path for finding in findings for run in finding.runs.values() if run.dataset_path]
    folders = [Path.home(), Path.cwd(), store.root.resolve(), *(Path(path).parent for path in paths)]
    return [str(folder) for folder in folders]
