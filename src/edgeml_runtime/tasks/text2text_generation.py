"""Text to text: a text in, the text that the model writes about it out, greedily.

Method: that of `text_generation`. The instruction stands before the text, as the prefixes of T5 do; reading both is
the time to the first token.
"""

from __future__ import annotations

from edgeml_runtime.tasks.text_generation import answers, cost, first, predict, work

__all__ = ["COLUMNS", "DEFAULT_REPEATS", "STEADY_IN_ANSWERS", "answers", "cost", "first", "predict", "work"]

COLUMNS = ("text",)
DEFAULT_REPEATS = 0  # every row once
STEADY_IN_ANSWERS = True
