"""Which token comes next: the likeliest, or one that is drawn. Numpy alone, the same for every format.

The order is that of Transformers (`_get_logits_processor`): temperature, then `top_k`, then `top_p` of what is left.
llama.cpp's own chain warms last, so that its `top_p` does not know of the temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.types import Generate

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

_SEEDS = 1 << 64  # a seed may be negative, as OpenAI's clients send it; PCG64 takes none that is


class NextToken:
    """The choices of one text: the same options, seed and logits make the same tokens."""

    def __init__(self, options: Generate) -> None:
        self._options = options
        self._chance = np.random.Generator(np.random.PCG64(options.seed % _SEEDS))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, so that nothing is drawn."""
        return not self._options.temperature

    def choose(self, logits: Floats) -> int:
        """The id of the next token; of equally likely ones the lowest comes first.

        Raises EdgemlError for logits that are no numbers.
        """
        if self.greedy:
            return likeliest(logits)
        ids, probabilities = candidates(logits, self._options)
        heights = np.cumsum(probabilities)
        place = np.searchsorted(heights, self._chance.random() * heights[-1], side="right")
        return int(ids[min(int(place), len(ids) - 1)])


def likeliest(logits: Floats) -> int:
    """The id of the likeliest token, of equally likely ones the lowest; raises EdgemlError where one is no number."""
    best = int(np.argmax(logits))  # the first that is no number, where one is
    _require_numbers(logits[best])
    return best


def candidates(logits: Floats, options: Generate) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids that may be drawn and their probabilities, which add up to one, for a temperature above 0.

    The likeliest comes first where `top_k` or `top_p` leaves some out; else they are in the order of their ids.
    Raises EdgemlError for logits that are no numbers.
    """
    ids, likely = np.arange(len(logits)), _softmax(logits, options.temperature)
    if 0 < options.top_k < len(ids):
        least = np.partition(likely, -options.top_k)[-options.top_k]
        ids, likely = _sorted(ids, likely, at_least=least)
        ids, likely = ids[: options.top_k], likely[: options.top_k] / likely[: options.top_k].sum()
    if options.top_p < 1:
        # All that are less likely than this make up less than what is left out.
        # The likeliest one stays, however its probability was rounded.
        ids, likely = _sorted(ids, likely, at_least=min((1 - options.top_p) / len(ids), likely.max()))
        count = int(np.searchsorted(np.cumsum(likely), options.top_p)) + 1
        ids, likely = ids[:count], likely[:count] / likely[:count].sum()
    return ids, likely


def _sorted(ids: Any, likely: Any, *, at_least: float) -> tuple[Any, Any]:
    kept = np.flatnonzero(likely >= at_least)
    order = kept[np.argsort(-likely[kept], kind="stable")]
    return ids[order], likely[order]


def _softmax(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """In 64 bits, since a vocabulary of 100 000 tokens adds up more roundings than 32 bits bear."""
    high = logits.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is hopeless becomes minus infinity, which is right
        powers = np.exp((high - high.max()) / temperature)
    total = powers.sum()
    _require_numbers(total)
    found: NDArray[np.float64] = powers / total
    return found


def _require_numbers(found: Any) -> None:
    if not np.isfinite(found):
        raise EdgemlError("the model gave no numbers to choose a token by", hint="make the variant again")
