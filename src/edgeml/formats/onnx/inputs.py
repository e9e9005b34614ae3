"""The inputs that a graph is calibrated and judged with: each is read as the runtime reads it, when it is needed.

A text is cut to the model's limit and is never padded: it goes in alone, or with others of the same length. So no
padding is in any range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgeml.errors import EdgemlError, why
from edgeml.formats.onnx.order import Order, require_two
from edgeml_runtime.session import Kind

Feeds = dict[str, Any]
# What graphs are compared on where the user gave no inputs: plain lines of several lengths, about nothing in special.
NEUTRAL = (
    "The library opens at nine and closes at six on weekdays.",
    "Please send the signed form back before Friday.",
    "Yes.",
    "A small boat crossed the river while it was still dark, and nobody on the far bank had noticed it yet.",
    "Invoice 2041: 3 boxes of paper, 12.50 each, delivered to 18 Mill Road.",
    "How long does the train from the coast take?",
    "Water boils at a lower temperature on a mountain than at the sea.",
    "She had read the book twice, and still could not say why its ending troubled her so much.",
)
_HELD = 4  # every fourth input judges
_JUDGES = (64, 16)  # at most, and of a decoder, whose answers are as wide as its vocabulary
_ALONE: tuple[Kind, ...] = ("decoder", "seq2seq")  # their graphs take one row


class Reader(NamedTuple):
    """Inputs: `feeds` gives what a graph is fed of one, and `lengths` how many tokens each has, 1 of a picture.

    `batches` says whether several may be stacked.
    """

    feeds: Callable[[int], Feeds]
    lengths: tuple[int, ...]
    batches: bool = True

    def chosen(self, rows: Sequence[int]) -> Reader:
        """These inputs alone, in this order."""
        feeds = self.feeds
        return Reader(lambda row: feeds(rows[row]), tuple(self.lengths[row] for row in rows), self.batches)

    def stacked(self, rows: int) -> Iterator[Feeds]:
        """Batches of at most so many inputs of one length, the shortest first."""
        groups = defaultdict(list)
        for row, length in enumerate(self.lengths):
            groups[length].append(row)
        step = rows if self.batches else 1
        for length in sorted(groups):
            for start in range(0, len(groups[length]), step):
                parts = [self.feeds(row) for row in groups[length][start : start + step]]
                yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def parts(reader: Reader) -> tuple[Reader, Reader]:
    """Inputs to find ranges with, and others to judge by: every fourth, and at most 64, or 16 of a decoder.

    Raises EdgemlError where there are not two.
    """
    count = len(reader.lengths)
    require_two(count)
    held = list(range(_HELD - 1, count, _HELD)) or [count - 1]
    rest = [row for row in range(count) if row not in set(held)]
    return reader.chosen(rest), reader.chosen(spread(held, _JUDGES[not reader.batches]))


def judged_on(order: Order, count: int) -> str:
    """In words, which inputs decide."""
    if order.calibration:
        return f"{count} calibration inputs that set no range"
    made = {"image": "pictures", "speech": "sounds"}.get(order.kind, "lines")
    return f"{count} neutral {made}, since no calibration inputs were given"


def spread(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of them, at equal distances."""
    if len(rows) <= most:
        return list(rows)
    return [rows[int(place)] for place in np.linspace(0, len(rows) - 1, most)]


def open_inputs(order: Order, graph: Path, *, encoder: Path | None = None) -> Reader:
    """What that graph is fed of the calibration inputs, or of neutral lines where there are none.

    `encoder` is the graph that reads, where this one writes. Raises EdgemlError for an input that cannot be read.
    """
    found = order.calibration
    if order.kind == "image":
        return _pictures(found.images if found else (), order, graph)
    if order.kind == "speech":
        return _sounds(order, graph, encoder)
    rows = _ids(order, found.texts or found.words if found else NEUTRAL)
    return _texts(rows, order.kind, graph, encoder, order.start_token)


def _pictures(paths: Sequence[str], order: Order, graph: Path) -> Reader:
    from edgeml_runtime.patterns import PATTERNS, picture
    from edgeml_runtime.pixels import numbers

    name, pixels = _inputs(graph)[0][0], order.pixels
    assert pixels is not None

    def feeds(row: int) -> Feeds:
        try:
            content = Path(paths[row]).read_bytes() if paths else picture(PATTERNS[row])
            return {name: numbers(content, pixels)[None]}
        except (OSError, EdgemlError) as error:
            hint = "take it out of the calibration pictures"
            raise EdgemlError(f"{Path(paths[row]).name} cannot be read: {why(error)}", hint=hint) from error

    return Reader(feeds, (1,) * (len(paths) or len(PATTERNS)))


def _sounds(order: Order, graph: Path, encoder: Path | None) -> Reader:
    from edgeml.formats.onnx.sounds import Heard
    from edgeml_runtime.tones import SOUNDS

    assert order.speech is not None
    heard, empty = Heard(order.speech), _empty(_inputs(graph))
    read = _reading(encoder) if encoder else None

    def feeds(row: int) -> Feeds:
        features = heard.features(row)
        if read is None:
            return {"input_features": features}
        return {"decoder_input_ids": heard.tokens(row), **empty, **read(features)}

    return Reader(feeds, (1,) * len(SOUNDS), batches=False)


def _ids(order: Order, texts: Sequence[Any]) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(order.folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(order.max_tokens or 512)
    words = not isinstance(texts[0], str)
    rows = [found.ids for found in tokenizer.encode_batch([list(one) if words else one for one in texts], words)]
    kept = [row for row in rows if row]
    if not kept:
        raise EdgemlError("the calibration inputs have no tokens", hint="give lines like those the model will read")
    return kept


def _texts(rows: list[list[int]], kind: Kind, graph: Path, encoder: Path | None, start: int | None) -> Reader:
    names = _inputs(graph)
    empty = _empty(names)
    read = _reading(encoder) if encoder else None

    def feeds(row: int) -> Feeds:
        ids = np.array([rows[row]], np.int64)
        written = np.array([[start or 0, *rows[row][:-1]]], np.int64)
        own = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
            "decoder_input_ids": written,
            **empty,
            **(read(ids) if read else {}),
        }
        return {name: own[name] for name, _ in names if name in own}

    return Reader(feeds, tuple(map(len, rows)), kind not in _ALONE)


def _empty(names: list[tuple[str, list[Any]]]) -> Feeds:
    """The caches of a graph that has written nothing yet."""
    return {
        name: np.zeros((1, int(shape[1]), 0, int(shape[3])), np.float32)
        for name, shape in names
        if "past_key_values" in name and "cross_attention" not in name
    }


def _reading(encoder: Path) -> Callable[[Any], Feeds]:
    """What the writing graph is fed of a text or sound: the keys and values that the reading graph makes of it."""
    session = _session(encoder)
    names, fed = [item.name for item in session.get_outputs()], session.get_inputs()[0].name

    def read(item: Any) -> Feeds:
        found = session.run(names, {fed: item})
        return {f"input.{name}": value for name, value in zip(names, found, strict=True)}

    return read


def _inputs(graph: Path) -> list[tuple[str, list[Any]]]:
    return [(item.name, item.shape) for item in _session(graph).get_inputs()]


def _session(path: Path) -> Any:
    from edgeml_runtime.backends.onnx import open_graph
    from edgeml_runtime.machine import default_threads

    return open_graph(path, threads=default_threads())
