"""The self-test of a bundle: every file is intact, and the model answers here as it did where it was packed.

The answers to compare with, the goldens, are made by the same code at packaging. Answers are compared within a stated
tolerance, since another processor rounds elsewhere. A model whose answer does not depend on its input is broken even
if it agrees with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeml_runtime.bundle import GOLDENS, VARIANT, Goldens, SelfTest, check_files, lying
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.patterns import PATTERNS, picture
from edgeml_runtime.records import read_record
from edgeml_runtime.session import kind_of, open_session, writes_text
from edgeml_runtime.tasks.encoding import require_answers_differ
from edgeml_runtime.tolerances import SAME_TOP, of_cosine
from edgeml_runtime.tones import SOUNDS, tone
from edgeml_runtime.trace import raw
from edgeml_runtime.types import Generate

if TYPE_CHECKING:
    from edgeml_runtime.session import Classifier, Decoder, Encoder, Floats, Tagger, Transcriber
    from edgeml_runtime.trace import Reader

SYNTHETIC = (
    "The quick brown fox jumps over the lazy dog.",
    "A small model answers on a small machine, without a network.",
    "Where is the nearest railway station?",
    "Invoice 2024-0815: 3 x 49.90 € = 149.70 €, due on 31 May.",
    "Crème brûlée, smörgåsbord, jalapeño, Łódź, naïve façade.",
    "In the morning it rained; by noon the streets were dry again.",
    "if (x < 10) { return y * 2; }",
    "ok",
)
LONGEST_TOKENS = 2048  # a model that reads more gets no text beyond its limit: a self-test should take seconds
DECODER_TOKENS = 48  # a text's logits take this many times the vocabulary, some 30 MB for 150 000 tokens
GREEDY = Generate(max_new_tokens=8)
_MADE = {"pictures": PATTERNS, "sounds": SOUNDS}
THREADS = 1  # the order of additions, and so the last bits, depend on the number of threads


def selftest(folder: Path, *, tick: Callable[[int], None] | None = None) -> SelfTest:
    """Check a bundle's files, then its model's answers; `tick` is told the bytes that were checked.

    Raises EdgemlError naming the first file that changed, or how far the answers are from the goldens.
    """
    bundle = check_files(folder, tick=tick)
    goldens = read_record(folder / GOLDENS, Goldens)
    agreement = compare(folder / VARIANT, goldens)
    return SelfTest(
        bundle=bundle.name,
        files=len(lying(folder, bundle)) + 1,
        texts=len(goldens.texts),
        agreement=agreement,
        minimum=goldens.minimum,
        read=next((what for what, names in _MADE.items() if set(goldens.texts) <= set(names)), "texts"),
    )


def record(folder: Path, texts: Sequence[str] | None = None) -> Goldens:
    """The goldens of the variant in `folder`: of the given texts, or of synthetic ones."""
    if texts is not None and (len(set(texts)) < 2 or not all(text.strip() for text in texts)):
        raise EdgemlError("goldens need two different texts, and none that is empty", hint="give another file")
    session = open_session(folder, threads=THREADS, gpu=False)  # what every device can come near
    try:
        kind = kind_of(session.manifest.task)
        if texts is not None and kind in ("image", "speech"):
            does, made = ("reads pictures", "drawn pictures") if kind == "image" else ("hears", "made sounds")
            hint = f"leave --goldens out: {made} are used"
            raise EdgemlError(f"the goldens of a model that {does} cannot be texts", hint=hint)
        if kind == "speech":
            return _sound_goldens(cast("Transcriber", session))
        if writes_text(session.manifest.task):
            return _decoder_goldens(cast("Decoder", session), texts)
        return _reader_goldens(cast("Reader", session), texts)
    finally:
        session.close()


def compare(folder: Path, goldens: Goldens) -> float:
    """How well the variant's answers agree with its goldens: the worst cosine, or the share of likeliest tokens.

    Raises EdgemlError when that is below the goldens' minimum, when texts become other tokens, or when the answers do
    not depend on the text.
    """
    session = open_session(folder, threads=THREADS)
    try:
        if kind_of(session.manifest.task) == "speech":
            agreement = _share_of_heard(cast("Transcriber", session), goldens)
        elif writes_text(session.manifest.task):
            agreement = _share_of_tokens(cast("Decoder", session), goldens)
        else:
            agreement = _worst_cosine(cast("Reader", session), goldens)
    finally:
        session.close()
    if agreement < goldens.minimum:
        what = "the cosine to" if goldens.vectors else "the share of tokens that agree with"
        raise EdgemlError(
            f"{session.manifest.name} answers differently here: {what} its goldens is {agreement:.4f}, "
            f"expected at least {goldens.minimum}",
            hint="use the library versions in requirements.txt, or pack a variant built for this processor",
        )
    return agreement


def _reader_goldens(session: Reader, texts: Sequence[str] | None) -> Goldens:
    chosen = _synthetic(session) if texts is None else tuple(texts)
    minimum, reason = of_cosine(session.manifest.scheme)
    return Goldens(
        texts=chosen,
        synthetic=texts is None,
        token_counts=_counts(session, chosen),
        minimum=minimum,
        reason=reason,
        vectors=tuple(tuple(_rounded(vector)) for vector in _vectors(session, chosen)),
    )


def _decoder_goldens(session: Decoder, texts: Sequence[str] | None) -> Goldens:
    chosen = SYNTHETIC if texts is None else tuple(texts)
    tokens = [session.tokenize(text) for text in chosen]
    heads = [row[:DECODER_TOKENS] for row in tokens]
    minimum, reason = SAME_TOP
    return Goldens(
        texts=chosen,
        synthetic=texts is None,
        token_counts=tuple(len(row) for row in tokens),
        minimum=minimum,
        reason=reason,
        tokens=tuple(tuple(row) for row in heads),
        top_tokens=tuple(tuple(row) for row in _likeliest(session, heads)),
        greedy=_greedy(session, chosen[0]),
    )


def _sound_goldens(session: Transcriber) -> Goldens:
    written = [session.transcribe(tone(name), GREEDY) for name in SOUNDS]
    minimum, reason = SAME_TOP
    tokens = tuple(made.tokens for made in written)
    return Goldens(
        texts=SOUNDS,
        synthetic=True,
        token_counts=tuple(len(tone(name)) for name in SOUNDS),
        minimum=minimum,
        reason=reason,
        tokens=tokens,
        top_tokens=tuple(tuple(row) for row in _tops([*_heard(session, SOUNDS, tokens)], session.manifest.name)),
        greedy=written[0].text,
    )


def _share_of_heard(session: Transcriber, goldens: Goldens) -> float:
    found = _tops([*_heard(session, goldens.texts, goldens.tokens)], session.manifest.name)
    return _agreeing(found, goldens)


def _heard(session: Transcriber, names: Sequence[str], tokens: Sequence[Sequence[int]]) -> Iterable[Floats]:
    """The logits of each made sound's answer, teacher-forced."""
    return (session.logits(tone(name), row) for name, row in zip(names, tokens, strict=True))


def _synthetic(session: Reader) -> tuple[str, ...]:
    """Texts, or for a model that sees the names of pictures."""
    return PATTERNS if _sees(session) else (*SYNTHETIC, *_beyond_limit(session))


def _sees(session: Reader) -> bool:
    return kind_of(session.manifest.task) == "image"


def _worst_cosine(session: Reader, goldens: Goldens) -> float:
    _same_tokens(_counts(session, goldens.texts), goldens.token_counts, goldens)
    cosines = []
    for found, golden in zip(_vectors(session, goldens.texts), goldens.vectors, strict=True):
        ours, theirs = _unit(found), _unit(np.array(golden, dtype=np.float32))
        if ours.shape != theirs.shape:
            problem = f"a vector has {len(ours)} numbers, its golden {len(theirs)}"
            raise EdgemlError(problem, hint="copy the bundle again")
        if len(ours):  # a text of words without any token has no logits
            cosines.append(float(ours @ theirs))
    return min(cosines, default=0.0)


def _vectors(session: Reader, texts: Sequence[str]) -> Sequence[Any]:
    """One vector a text: that of an encoder, the logits of a classifier, or those of all words, one after the other.

    A picture's are its logits too.
    """
    items = [_item(session, text) for text in texts]
    found = [raw(session, item) for item in items]
    different = {part for item in items for part in (item if isinstance(item, list) else [item])}
    together = np.concatenate(found)
    require_answers_differ(together, session.manifest.name, different=len(different) > 1 and len(together) > 1)
    return [one.ravel() for one in found]


def _item(session: Reader, text: str) -> Any:
    """What the model reads for a text: the text, its words, or the picture of that name."""
    if _sees(session):
        return picture(text)
    return text.split() if kind_of(session.manifest.task) == "tagger" else text


def _count(session: Reader, text: str) -> int:
    item = _item(session, text)
    if _sees(session):
        return len(item)  # a picture has no tokens, and its bytes must be the same everywhere
    return cast("Encoder | Classifier | Tagger", session).count_tokens(item)


def _share_of_tokens(session: Decoder, goldens: Goldens) -> float:
    tokens = [session.tokenize(text) for text in goldens.texts]
    _same_tokens([len(row) for row in tokens], goldens.token_counts, goldens)
    _same_tokens([tuple(row[:DECODER_TOKENS]) for row in tokens], goldens.tokens, goldens)
    _greedy(session, goldens.texts[0])
    return _agreeing(_likeliest(session, tokens), goldens)


def _agreeing(found: Sequence[Sequence[int]], goldens: Goldens) -> float:
    """The share of likeliest tokens that are the goldens'."""
    agreeing = [
        ours == theirs
        for row, expected in zip(found, goldens.top_tokens, strict=True)
        for ours, theirs in zip(row, expected, strict=True)
    ]
    return sum(agreeing) / len(agreeing)


def _likeliest(session: Decoder, rows: Iterable[Sequence[int]]) -> list[list[int]]:
    """The likeliest successor at each position of each row's beginning; refuses logits that never change."""
    return _tops([session.logits(row[:DECODER_TOKENS]) for row in rows], session.manifest.name)


def _tops(logits: Sequence[Floats], name: str) -> list[list[int]]:
    """The likeliest at each position; refuses logits that are no numbers, or never change."""
    if not all(np.isfinite(one).all() for one in logits):
        raise EdgemlError(f"{name} is broken: it answers with NaN", hint="use another scheme")
    if all(np.allclose(one, logits[0][0], atol=1e-5) for one in logits):
        raise EdgemlError(
            f"{name} is broken: its answer does not depend on what it reads",
            hint="make the variant again, or use another scheme",
        )
    return [[int(token) for token in one.argmax(1)] for one in logits]


def _greedy(session: Decoder, text: str) -> str:
    return session.generate(session.prompt(None, text), GREEDY).text


def _same_tokens(ours: Sequence[Any], theirs: Sequence[Any], goldens: Goldens) -> None:
    for text, here, there in zip(goldens.texts, ours, theirs, strict=True):
        if here != there:
            raise EdgemlError(
                f"the text {text[:40]!r} becomes other tokens here than where the bundle was packed",
                hint="use the library versions in requirements.txt",
            )


def _beyond_limit(session: Reader) -> tuple[str, ...]:
    """One text longer than the model reads, so that where it is cut is tested too; none if that is very long."""
    limit = session.manifest.max_tokens
    text = " ".join(f"Line {number}: a text that goes on and on." for number in range(limit // 8 + 2))
    return (text,) if _count(session, text) > limit and limit <= LONGEST_TOKENS else ()


def _counts(session: Reader, texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(_count(session, text) for text in texts)


def _rounded(vector: Any) -> list[float]:
    return [float(f"{value:.7g}") for value in vector]  # all that a 32-bit number holds, in less than half the text


def _unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector).clip(1e-12)
