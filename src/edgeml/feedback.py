"""The verb `feedback`: bring home what devices kept, count it, and export it in pools that never mix."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.progress import Progress, silent
from edgeml.pulled import POOLS, Export, Pool, Pull, Pulled, Tally, brought_home, erase, keep, models_of, read_pulled
from edgeml.scores import as_text, scorer_of
from edgeml.store import Store, write_text
from edgeml.targets.ssh import Connection
from edgeml.targets.ssh import feedback as there
from edgeml.threshold import CATCHES, Threshold, require_shares, thresholds
from edgeml.types import REPORT, Run, Variant
from edgeml_runtime.errors import unknown
from edgeml_runtime.feedback.sealing import seal_of
from edgeml_runtime.feedback.store import items_of
from edgeml_runtime.feedback.types import Item
from edgeml_runtime.records import read_record
from edgeml_runtime.tasks import ready, task_of
from edgeml_runtime.types import Absent, Record, Row

_BRING = "edgeml feedback pull --host user@address"
_LABELLED = ("feature-extraction", "text-classification")  # whose right answers are few words, and no input


class Wanted(Record, frozen=True, kw_only=True):
    """What to pull from `device`, by the name that is kept with its items.

    `file` is the store's path there; left out, it is sought, for one `bundle` or all. `key` is the file of its key.
    With `delete` the device forgets what came home. With `sudo` it is read as root there, without a password.
    """

    device: str
    bundle: str | None = None
    file: str | None = None
    key: Path | None = None
    delete: bool = False
    sudo: bool = False


def pull_host(store: Store, connection: Connection, wanted: Wanted, *, progress: Progress = silent) -> Pull:
    """Bring home what a device keeps; it forgets nothing before it is on this disk.

    Raises EdgemlError where it cannot be had whole.
    """
    seal, step = seal_of(wanted.key) if wanted.key else None, f"copy the feedback of {wanted.device}"
    progress(step, 0, 1)
    path = wanted.file or there.find(connection, wanted.bundle, sudo=wanted.sudo)
    found = items_of(there.copy(connection, path, sudo=wanted.sudo), seal, where=f"{path} of {wanted.device}")
    done = _kept(store, found, device=wanted.device, file=path)
    progress(step, 1, 1)
    if not (wanted.delete and found):
        return done
    return replace(done, removed=there.forget(connection, path, _at_home(store, found), sudo=wanted.sudo))


def pull_file(store: Store, path: Path, *, key: Path | None = None, device: str | None = None) -> Pull:
    """The same from a copy of the file that somebody carried here; the copy stays as it is."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    if path.with_name(f"{path.name}-journal").exists():
        hint = "stop the endpoint there and copy it again, or: edgeml feedback pull --host"
        raise EdgemlError(f"{path} was copied in the middle of a change", hint=hint)
    found = items_of(content, seal_of(key) if key else None, where=str(path))
    return _kept(store, found, device=device or path.stem, file=str(path))


def tallies(store: Store, model: str | None) -> list[Tally]:
    """How many items there are, by all that makes them differ but their texts."""
    counts = Counter(
        (one.model, one.item.task, one.pool, one.item.kind, one.device, _label(one.item))
        for one in pulled(store, model)
    )
    order = sorted(counts.items(), key=lambda entry: tuple(str(part or "") for part in entry[0]))
    return [
        Tally(model=model, task=task, pool=pool, kind=kind, device=device, label=label, count=count)
        for (model, task, pool, kind, device, label), count in order
    ]


def pulled(store: Store, model: str | None) -> list[Pulled]:
    """Every item at home, of all models or of one. Raises EdgemlError for a model without any."""
    known = models_of(store)
    if model is not None and model not in known:
        if not known:
            raise EdgemlError("no feedback was brought home yet", hint=_BRING)
        raise unknown("model with feedback", model, known, plural="models")
    return read_pulled(store, [model] if model else known)


def export(store: Store, model: str | None, *, pool: Pool, out: Path, task: str | None = None) -> Export:
    """Write a pool's inputs as rows of a task, each once; those for calibration without right answers.

    An input whose corrections contradict each other is left out, since no clock of a device says which came last.
    Raises EdgemlError where `out` exists, no row would be left, or there is more than one model or task to choose from.
    """
    if out.exists():
        raise EdgemlError(f"{out} exists already", hint="choose another name: an export is never written over")
    found = pulled(store, model)
    if not found:
        raise EdgemlError("no feedback was brought home yet", hint=_BRING)
    model = model or _only("model", [one.model for one in found])
    task = task or _only("task", [one.item.task for one in found])
    inputs: dict[str, list[Item]] = {}
    for one in found:
        if one.pool == pool and one.item.task == task:
            inputs.setdefault(one.item.content, []).append(one.item)
    rows, reasons = _rows(task, pool, inputs)
    left_out = Counter(reasons.values())
    if not rows:
        why = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nothing is in that pool"
        raise EdgemlError(f"no row for {pool} of {model}: {why}", hint="edgeml feedback list shows what there is")
    write_text(out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    conflicting = sorted(one.id for key, reason in reasons.items() if reason == _CONFLICT for one in inputs[key])
    return Export(
        model=model,
        task=task,
        pool=pool,
        file=str(out),
        rows=len(rows),
        left_out=dict(left_out),
        conflicting=tuple(conflicting),
    )


def forget(store: Store, ids: Sequence[str]) -> int:
    """Remove items from this machine for good; how many. Raises EdgemlError for an id that is not here."""
    known = {one.item.id for one in read_pulled(store, models_of(store))}
    for id in ids:
        if id not in known:
            raise EdgemlError(f"no item {id!r}", hint="edgeml feedback list --show-inputs tells their ids")
    return len(erase(store, set(ids)))


def new_key(path: Path) -> None:
    """A key of 256 random bits in a new file that only its owner may read."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        hint = "choose another name: without an old key, nobody can read what it sealed"
        raise EdgemlError(f"{path} exists already", hint=hint) from error
    except OSError as error:
        raise EdgemlError(f"cannot write {path}: {error.strerror}", hint="check the path") from error
    with os.fdopen(handle, "w") as file:
        file.write(f"{secrets.token_hex(32)}\n")


def propose(store: Store, variant: Variant, *, task: str | None, catches: Sequence[float]) -> list[Threshold | Absent]:
    """Thresholds by the newest run of these weights on data that has right answers, or why there is none.

    Raises EdgemlError where nothing was run.
    """
    from edgeml.conditions import weights_sha256

    require_shares(catches)
    folder = store.measurements_folder(variant.name.partition("/")[0])
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(REPORT)]
    weights = weights_sha256(variant)
    task = task or variant.manifest.task
    runs = [run for run in (read_record(path, Run) for path in paths) if _is_of(run, weights, task)]
    if not runs:
        hint = f"edgeml bench {variant.name} --task {task} --data FILE"
        raise EdgemlError(f"{variant.name} was not run on {task} yet", hint=hint)
    return thresholds(max(runs, key=lambda run: (bool(run.gold), run.started)), catches or CATCHES)


def _is_of(run: Run, weights: str, task: str) -> bool:
    return run.variant_sha256 == weights and run.task == task and bool(run.outcome.answers)


def _kept(store: Store, found: Sequence[Item], *, device: str, file: str) -> Pull:
    now = datetime.now(UTC)
    homes = [brought_home(item, device=device, pulled=now.isoformat(timespec="seconds")) for item in found]
    new = keep(store, homes, stamp=f"{now:%Y%m%dT%H%M%S}")
    counts = Counter(one.pool for one in new)
    pools = {str(pool): counts[pool] for pool in POOLS if counts[pool]}
    return Pull(device=device, file=file, items=len(found), new=len(new), pools=pools)


def _at_home(store: Store, found: Sequence[Item]) -> list[str]:
    """The ids, once it is certain that each is here as it was there."""
    here = {one.item.id: one.item for one in read_pulled(store, models_of(store))}
    for item in found:
        own = here.get(item.id)
        if own is None or (own.input, own.answer, own.correction) != (item.input, item.answer, item.correction):
            hint = "nothing was removed on the device; move the folder feedback/ away and pull again"
            raise EdgemlError(f"item {item.id} is here, and differs from the device's", hint=hint)
    return [item.id for item in found]


def _only(noun: str, names: Sequence[str]) -> str:
    known = sorted(set(names))
    if len(known) != 1:
        raise EdgemlError(f"feedback of {len(known)} {noun}s is here", hint=f"name one of {', '.join(known)}")
    return known[0]


def _label(item: Item) -> str | None:
    found = _right(item.task, item.correction) if item.task in _LABELLED and item.correction is not None else None
    return None if found is None else as_text(found)


_CONFLICT = "with corrections that contradict each other"
_UNCORRECTED = "without a correction"
_UNFIT = "that the task cannot read"


def _rows(task: str, pool: Pool, inputs: dict[str, list[Item]]) -> tuple[list[Row], dict[str, str]]:
    """The rows, and why an input, by its content, became none."""
    rows, reasons = [], {}
    for content, items in inputs.items():
        row, reason = _row(task, items, labelled=pool != "calibration")
        if row is None:
            reasons[content] = reason
        else:
            rows.append(row)
    return rows, reasons


def _row(task: str, items: Sequence[Item], *, labelled: bool) -> tuple[Row | None, str]:
    columns = task_of(task).COLUMNS
    input = items[0].input
    if not set(columns) <= input.keys():
        return None, _UNFIT
    try:
        row = ready(task, [{column: input[column] for column in columns}], "the feedback")[0]
    except EdgemlError:
        return None, _UNFIT
    if not labelled:
        return row, ""
    return _with_right(task, row, items)


def _with_right(task: str, row: Row, items: Sequence[Item]) -> tuple[Row | None, str]:
    found = {as_text(one.correction): one.correction for one in items if one.correction is not None}
    if not found:
        return None, _UNCORRECTED
    answers = {as_text(right): right for one in found.values() if (right := _right(task, one)) is not None}
    if len(answers) > 1:
        return None, _CONFLICT
    right = next(iter(answers.values()), None)
    if right is None or not _FITS.get(task, _any)(right, row):
        return None, _UNFIT
    return {**row, str(scorer_of(task).GOLD): right}, ""


def _right(task: str, correction: Any) -> Any:
    """What stands in the column of right answers: the correction itself, or its part of that name."""
    column = scorer_of(task).GOLD
    if isinstance(correction, dict) and column in correction:
        return correction[column]
    return None if isinstance(correction, dict) and task not in _WRITTEN else correction


_WRITTEN = ("text-generation", "text2text-generation")  # whose right answer may be any JSON


def _any(right: Any, row: Row) -> bool:  # noqa: ARG001 - one signature for all
    return as_text(right).strip() != ""


def _is_label(right: Any, row: Row) -> bool:  # noqa: ARG001 - one signature for all
    return isinstance(right, str | int) and not isinstance(right, bool) and str(right).strip() != ""


def _is_number(right: Any, row: Row) -> bool:  # noqa: ARG001 - one signature for all
    return isinstance(right, int | float) and not isinstance(right, bool) and math.isfinite(right)


def _are_tags(right: Any, row: Row) -> bool:
    return isinstance(right, list) and len(right) == len(row["tokens"])


_FITS: dict[str, Callable[[Any, Row], bool]] = {
    "feature-extraction": _is_label,
    "sentence-similarity": _is_number,
    "text-classification": _is_label,
    "token-classification": _are_tags,
}
