"""Image classification, judged as text classification is: by the labels alone."""

from __future__ import annotations

from edgeml.scores.text_classification import GOLD, HEADLINE, essence, named, read_gold, scores

__all__ = ["GOLD", "HEADLINE", "essence", "named", "read_gold", "scores"]
