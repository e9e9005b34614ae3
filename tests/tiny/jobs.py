"""The smallest jobs."""

from __future__ import annotations

from pathlib import Path

from edgeml_runtime.types import Job


def pair_job(folder: Path, *, words: int = 1, trace: bool = False) -> Job:
    """One inference of the variant in a folder, on a Raspberry Pi 5: a pair of texts of so many times two words."""
    row = {"sentence1": "a text " * words, "sentence2": "another " * words, "score": 1.0}
    return Job(
        variant=str(folder),
        task="sentence-similarity",
        target="pi5",
        threads=1,
        warmups=0,
        repeats=1,
        seed=0,
        rows=(row,),
        trace=trace,
    )
