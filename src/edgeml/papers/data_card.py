"""Data cards: what is known of the data that judged a variant. No row of it is inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgeml.dataset import MOST_SLICES
from edgeml.papers.evidence import Evidence
from edgeml.papers.markdown import facts, table
from edgeml.papers.own import DataNotes, data_notes
from edgeml.types import Run
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.records import sha256
from edgeml_runtime.rows import read_rows

_LABELLED = ("text-classification", "image-classification", "feature-extraction", "token-classification")
_TABLES = (".jsonl", ".csv", ".tsv")
_UNKNOWN = "not known: the file is no longer where it was read"


def data_card(found: Evidence, calibration_sha256: str | None = None) -> str:
    """Markdown with the Hub's metadata block on top: a section for each file that a figure comes from."""
    from huggingface_hub import DatasetCard, DatasetCardData

    runs = _by_file(found.runs)
    notes = {digest: data_notes(_path(group[0])) for digest, group in runs.items()}
    about = DatasetCardData(
        pretty_name="Data that judged this model",
        license=sorted({one.licence for one in notes.values() if one.licence}) or None,
        language=sorted({word for one in notes.values() for word in one.languages}) or None,
        task_categories=sorted({run.task for run in found.runs}) or None,
    )
    nothing = "Nothing was measured, so no data judged this model."
    lines = ["# Data", "", "No row of any file is in this bundle." if runs else nothing, ""]
    lines += [line for digest, group in runs.items() for line in _section(group, notes[digest])]
    lines += ["## Calibration data", "", _calibration(calibration_sha256, set(runs)), ""]
    metadata = about.to_yaml().strip() or "{}"
    return str(DatasetCard(f"---\n{metadata}\n---\n\n" + "\n".join(lines)))


def _by_file(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.dataset, run.dataset_sha256, run.target, run.started)):
        found.setdefault(run.dataset_sha256, []).append(run)
    return found


def _section(runs: Sequence[Run], notes: DataNotes) -> list[str]:
    first = next((run for run in runs if run.gold), runs[0])
    columns = _columns(first)
    known: list[tuple[str, object]] = [
        ("SHA-256", f"`{first.dataset_sha256}`"),
        ("read for", ", ".join(dict.fromkeys(run.task for run in runs))),
        ("rows that were read", _rows(first)),
        (
            "columns",
            ", ".join(columns) if columns else _UNKNOWN if first.dataset_path else "lines that edgeml has itself",
        ),
        ("right answers", "yes" if any(run.gold for run in runs) else "none: it can show cost, and judge nothing"),
        ("split", notes.split or "not stated"),
        ("licence", notes.licence or "not stated"),
        ("origin", notes.origin or "not stated"),
        ("collected", notes.collected or "not stated"),
        ("languages", ", ".join(notes.languages) or "not stated"),
        ("personal data", notes.personal_data or "not stated"),
    ]
    if first.reference_sha256:
        known.append(("sought among", f"the rows of a second file, SHA-256 `{first.reference_sha256}`"))
    about = [notes.about.strip(), ""] if notes.about else []
    return [f"## {' '.join(first.dataset.split())}", "", *about, *facts(known), *_labels(first), *_slices(first)]


def _rows(run: Run) -> str:
    count = len(run.gold) or len(run.outcome.answers)
    if run.task == "perplexity":
        return "a plain text"
    drawn = f", drawn with seed {run.seed}" if run.numbers else ""
    limit = f", the first {run.limit} of the file" if run.limit else ""
    return f"{count}{limit}{drawn}"


def _columns(run: Run) -> list[str]:
    """The names of the file's columns, where it is still the one that was read."""
    path = _path(run)
    if path is None or path.suffix.lower() not in _TABLES:
        return ["text"] if path else []
    try:
        return list(read_rows(path)[0])
    except EdgemlError:  # it was read once: what became of it since is not this card's to refuse
        return []


def _path(run: Run) -> Path | None:
    path = Path(run.dataset_path) if run.dataset_path else None
    return path if path and path.is_file() and sha256(path) == run.dataset_sha256 else None


def _labels(run: Run) -> list[str]:
    if run.task not in _LABELLED or not run.gold:
        return []
    labels = [label for one in run.gold for label in (one if isinstance(one, list | tuple) else [one])]
    counts = Counter(map(str, labels))
    if len(counts) > MOST_SLICES:
        return [
            f"{len(counts)} labels, the rarest on {min(counts.values())}, the commonest on {max(counts.values())}.",
            "",
        ]
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return table(("label", "count"), rows, right=("count",))


def _slices(run: Run) -> list[str]:
    rows = [
        [column, value, count]
        for column, values in sorted(run.slices.items())
        for value, count in sorted(Counter(values).items())
    ]
    return table(("slice by", "value", "rows"), rows, right=("rows",)) if rows else []


def _calibration(digest: str | None, judged: set[str]) -> str:
    if digest is None:
        return "The weights were quantized without any."
    also = " **The same file judged the model: its figures are not to be trusted.**" if digest in judged else ""
    return f"The weights were quantized with a file of SHA-256 `{digest}`.{also}"
