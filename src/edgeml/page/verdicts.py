"""The verdicts in words, and what a variant differs by where nobody asked for a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeml.page.blocks import Block, Listing, Statement, Text
from edgeml.page.finding import Finding
from edgeml.page.words import bounds_of, digits, listed, number, scaled, title, with_unit
from edgeml.types import Difference, Verdict, VerdictWord
from edgeml.verdicts.limits import lower_is_better, samples_noun

_ORDER: tuple[VerdictWord, ...] = ("fail", "cannot tell", "pass")
_HEADS = {"pass": "passes", "fail": "fails", "cannot tell": "cannot tell"}
_NO_METHOD = ("none", "a fact")  # where nothing was estimated
_ASK = "No bound was set, so there is no verdict; with edgeml bench --baseline VARIANT --max-drop 1% there is."


def verdicts(finding: Finding) -> list[Block]:
    """A statement for each verdict, failures first; without any, what differs from the baseline."""
    found = sorted(finding.report.verdicts, key=lambda one: _ORDER.index(one.verdict))
    statements = [_statement(one, finding) for one in found]
    judged = {(one.variant, one.metric) for one in found if one.baseline and one.slice is None}
    changes = [
        change(one, finding)
        for one in finding.report.differences
        if one.slice is None and (one.variant, one.metric) not in judged
    ]
    blocks: list[Block] = [Text(text=_outcome(found, finding)), *statements] if statements else [Text(text=_ASK)]
    return [*blocks, Listing(items=tuple(changes))] if changes else blocks


def _outcome(found: Sequence[Verdict], finding: Finding) -> str:
    """One sentence a word: which variants fail a bound, of which one cannot tell, and which pass every one."""
    worst: dict[str, VerdictWord] = {}
    for one in found:  # failures come first, and decide
        worst.setdefault(one.variant, one.verdict)
    names = {word: [finding.short(name) for name in worst if worst[name] == word] for word in _ORDER}
    sentences = [
        f"{listed(names['fail'])} {'fails' if len(names['fail']) == 1 else 'fail'}." if names["fail"] else "",
        f"Cannot tell of {listed(names['cannot tell'])}." if names["cannot tell"] else "",
        f"{listed(names['pass'])} {'passes' if len(names['pass']) == 1 else 'pass'}." if names["pass"] else "",
    ]
    return " ".join(filter(None, sentences))


def change(one: Difference, finding: Finding) -> str:
    """A paired difference in words."""
    what, they = title(one.metric), finding.short(one.baseline)
    said = f"{finding.short(one.variant)}: no difference in {what} from {they}"
    if one.difference:
        size = _amount(abs(one.difference), one)
        than = f"{'lower' if one.difference < 0 else 'higher'} than that of {they}"
        said = f"{finding.short(one.variant)}: {what} is {size} {than}"
    where = f" on rows with {one.slice}" if one.slice else ""
    if one.low is None or one.high is None:
        return f"{said}{where} (n = {one.n}, too few for an interval)"
    includes = ", which includes no change" if one.low <= 0 <= one.high else ""
    interval = _interval(one)  # none where every row is the same
    return f"{said}{where} ({f'{interval}{includes}; ' if interval else ''}n = {one.n})"


def _statement(one: Verdict, finding: Finding) -> Statement:
    method = "" if one.method.startswith(_NO_METHOD) else one.method
    return Statement(word=one.verdict, head=_head(one, finding), body=_body(one, finding), method=method)


def _head(one: Verdict, finding: Finding) -> str:
    where = f", {one.slice}" if one.slice else ""
    if one.verdict == "cannot tell":
        return f"Cannot tell whether {finding.short(one.variant)} passes: {title(one.metric, one.statistic)}{where}"
    return f"{finding.short(one.variant)} {_HEADS[one.verdict]}: {title(one.metric, one.statistic)}{where}"


def _body(one: Verdict, finding: Finding) -> str:
    known = one.difference is not None or one.value is not None
    grounds = [_against(one, finding), _interval(one), f"n = {one.n}" if one.n > 1 else ""] if known else []
    if one.p_value is not None:
        grounds.append(f"exact McNemar p = {one.p_value:.2g}")
    sentences = ["; ".join(filter(None, grounds)), one.reason or ""]
    if one.n_needed is not None:
        sentences.append(f"about {one.n_needed} {samples_noun(one.metric)} in all would probably decide")
    return " ".join(f"{_begun(text, one)}." for text in sentences if text)


def _begun(text: str, one: Verdict) -> str:
    """As a sentence begins, but for the name of a variant, or a metric, which is spelt as it is."""
    names = (one.variant, one.baseline, one.metric)
    return text if any(name and text.startswith(name) for name in names) else f"{text[:1].upper()}{text[1:]}"


def _against(one: Verdict, finding: Finding) -> str:
    if one.difference is None:
        value = "not known" if one.value is None else _amount(one.value, one)
        side = "most" if lower_is_better(one.metric) else "least"
        return f"{value}, at {side} {with_unit(f'{scaled(one.bound, one.unit):.4g}', one.unit)} allowed"
    moved = "did not change"
    if one.difference:
        moved = f"{'fell' if one.difference < 0 else 'rose'} by {_amount(abs(one.difference), one)}"
    return f"{moved} against {finding.short(one.baseline or 'the baseline')}, {_allowed(one)}"


def _allowed(one: Verdict) -> str:
    """The bound of a difference in words: a loss that is allowed or, of a cost, a saving that is demanded."""
    if one.bound == 0:
        return "no loss allowed"
    move = "fall" if one.bound < 0 else "rise"
    demanded = (one.bound < 0) == lower_is_better(one.metric)
    return f"a {move} of {f'at least {_bound(one)} demanded' if demanded else f'at most {_bound(one)} allowed'}"


def _amount(value: float, one: Verdict | Difference) -> str:
    decimals = digits(*bounds_of(value, one.low, one.high, one.unit))
    return with_unit(number(scaled(value, one.unit), decimals), one.unit)


def _bound(one: Verdict) -> str:
    """The bound with the interval's decimals, or with as many as it takes to say it."""
    bound = abs(scaled(one.bound, one.unit))
    decimals = max(digits(*bounds_of(one.bound, one.low, one.high, one.unit)), 1 - math.floor(math.log10(bound)))
    return with_unit(number(bound, decimals), one.unit)


def _interval(one: Verdict | Difference) -> str:
    if one.low is None or one.high is None or one.low == one.high:
        return ""
    decimals = digits(*bounds_of(one.low, one.low, one.high, one.unit))
    is_change = isinstance(one, Difference) or one.baseline is not None
    low, high = (number(scaled(bound, one.unit), decimals, signed=is_change) for bound in (one.low, one.high))
    level = f"{one.level or 0.95:.0%}".replace("%", " %")
    return f"{level} interval {low} to {high}"
