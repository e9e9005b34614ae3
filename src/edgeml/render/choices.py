"""What was chosen and measured when a variant was made, in a line, and what of it a reader must know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeml.render.tables import short
from edgeml.types import Variant

_MANY = 3  # names of nodes that a line has room for


def chosen(settings: dict[str, Any]) -> list[str]:
    """A line for each graph whose making chose or measured something."""
    return [f"{place}{_line(own)}" for place, own in _graphs(settings)]


def warnings(value: Any) -> list[str]:
    """What a variant's making measured that should make a reader think again, in sentences; none of another value."""
    found: list[str] = []
    for place, own in _graphs(value.manifest.settings) if isinstance(value, Variant) else ():
        name = f"{place}of {value.name}" if place else value.name
        share, times = own.get("share_of_fp32_time", 0), own.get("times_ms", {})
        if share > 1:
            taken = f"{times[own['chosen']]:.3g} ms against {times['fp32']:.3g} ms {own['timed']}"
            found.append(f"{name} takes {share:.2f} of fp32's time ({taken}): it saves memory alone")
        if own.get("clipped"):
            found.append(f"{own['clipped']} weights of {name} were too large for half precision and were cut")
    return found


def chosen_of(variant: Variant) -> list[str]:
    """The lines of `chosen`, each with the variant's short name."""
    return [f"{short(variant.name)}: {text}" for text in chosen(variant.manifest.settings)]


def _graphs(settings: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "chosen" in settings:
        yield "", settings
        return
    for name, own in settings.items():
        if isinstance(own, dict) and "chosen" in own:
            yield f"{name} ", own


def _line(own: dict[str, Any]) -> str:
    parts = [f"chosen: {own['chosen']}"]
    agreement = own.get("agreement", {})
    if own["chosen"] in agreement:
        others = ", ".join(f"{name} {value:.4f}" for name, value in agreement.items() if name != own["chosen"])
        before = f", {own['agreement_before']:.4f} before" if "agreement_before" in own else ""
        parts.append(f"agreement {agreement[own['chosen']]:.4f}{before}" + (f" ({others})" if others else ""))
    if "share_of_fp32_time" in own:
        parts.append(f"{own['share_of_fp32_time']:.2f} of fp32's time {own['timed']}")
    if kept := own.get("excluded"):
        more = f" and {len(kept) - _MANY} more" if len(kept) > _MANY else ""
        parts.append(f"kept whole: {', '.join(kept[:_MANY])}{more}")
    return "; ".join(parts)
