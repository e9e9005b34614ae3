"""Run by the environment of peers/usaddress.txt, which has no edgeml: trains and asks the CRF of usaddress.

    python usaddress_crf.py train MODEL ROWS        with usaddress's features and its trainer's own settings
    python usaddress_crf.py tune MODEL ROWS DEV     as train, with the regularization that is best on DEV
    python usaddress_crf.py tags MODEL ROWS         a JSON list of tags for each row, a line each
    python usaddress_crf.py time MODEL ROWS         the median of milliseconds for one address: words in, tags out

ROWS are JSON lines with `tokens` and `tags`; MODEL `stock` is the model that the package ships.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycrfsuite
import usaddress
from parserator.training import trainModel

GRID = [(c1, c2) for c1 in (0.1, 0.3, 0.5, 1.0) for c2 in (0.01, 0.1)]  # L1 and L2; parserator's own are 0.1, 0.01


def read(path: str) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def tagger(model: str) -> Callable[[list[str]], list[str]]:
    """A function of words that gives their tags."""
    found = usaddress.TAGGER
    if model != "stock":
        found = pycrfsuite.Tagger()
        found.open(model)
    return lambda words: found.tag(usaddress.tokens2features(words))


def timed(tag: Callable[[list[str]], list[str]], rows: list[dict[str, Any]]) -> float:
    """The median of one address, in milliseconds, after fifty that do not count."""
    times = []
    for row in [*rows[:50], *rows]:
        began_s = time.perf_counter()
        tag(row["tokens"])
        times.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(times[50:])


def train(model: str, rows: list[dict[str, Any]], **settings: float) -> None:
    """Write a model that learnt the rows."""
    labelled = [(None, list(zip(row["tokens"], row["tags"], strict=True))) for row in rows]
    trainModel(labelled, usaddress, model, **({"params_to_set": settings} if settings else {}))


def tune(model: str, rows: list[dict[str, Any]], dev: list[dict[str, Any]]) -> None:
    """Write the model of the settings that label most words of `dev` right."""
    best = -1
    for c1, c2 in GRID:
        train(f"{model}.tried", rows, c1=c1, c2=c2, **{"feature.minfreq": 0})
        tag = tagger(f"{model}.tried")
        right = sum(a == b for row in dev for a, b in zip(tag(row["tokens"]), row["tags"], strict=True))
        print(f"CRF with c1={c1}, c2={c2}: {right} words of dev right", file=sys.stderr, flush=True)
        if right > best:
            best = right
            Path(f"{model}.tried").replace(model)


if __name__ == "__main__":
    verb, model, *files = sys.argv[1:]
    rows = read(files[0])
    if verb == "train":
        train(model, rows)
    elif verb == "tune":
        tune(model, rows, read(files[1]))
    elif verb == "tags":
        tag = tagger(model)
        for row in rows:
            print(json.dumps(tag(row["tokens"])))
    else:
        print(json.dumps(timed(tagger(model), rows)))
