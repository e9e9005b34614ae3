"""Run by the environment of peers/usaddress.txt, which has no edgeml: trains and asks the CRF of usaddress.

    python usaddress_crf.py train MODEL ROWS...     with usaddress's features and its trainer's own settings
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


def read(*paths: str) -> list[dict[str, Any]]:
    """The rows of some files."""
    return [json.loads(line) for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]


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


if __name__ == "__main__":
    verb, model, *files = sys.argv[1:]
    rows = read(*files)
    if verb == "train":
        trainModel([(None, list(zip(row["tokens"], row["tags"], strict=True))) for row in rows], usaddress, model)
    elif verb == "tags":
        tag = tagger(model)
        for row in rows:
            print(json.dumps(tag(row["tokens"])))
    else:
        print(json.dumps(timed(tagger(model), rows)))
