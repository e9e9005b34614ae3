"""What the process that makes ONNX graphs is asked, and what it answers. No I/O."""

from __future__ import annotations

from typing import Any

from edgeml.errors import EdgemlError
from edgeml.formats import Calibration, Wishes
from edgeml_runtime.session import Kind
from edgeml_runtime.types import Pixels, Record, Speech


class Order(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.onnx-order/1"):
    """One conversion: read `source`, write into `folder`; the export is kept in `shared` for the next scheme.

    `kernels` are those of the target, and `here` says whether they are this machine's as well. `max_tokens`, `pixels`,
    `speech` and `start_token` say how the model reads its inputs. `settled` are the settings of an earlier conversion,
    which this one repeats without choosing anew.
    """

    source: str
    folder: str
    shared: str
    kind: Kind
    scheme: str
    kernels: str
    here: bool = False
    max_tokens: int = 0
    pixels: Pixels | None = None
    speech: Speech | None = None
    start_token: int | None = None
    calibration: Calibration | None = None
    wishes: Wishes = Wishes()
    settled: dict[str, Any] = {}
    only_export: bool = False


class Answer(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.onnx-answer/1"):
    """What was chosen and measured, and whether the calibration inputs decided anything of the graph's bytes."""

    settings: dict[str, Any] = {}
    calibrated: bool = False


def require_two(count: int) -> None:
    """Raise EdgemlError for fewer calibration inputs than two."""
    if count < 2:
        raise EdgemlError("the calibration inputs are too few: one sets ranges, another judges", hint="give 2 or more")
