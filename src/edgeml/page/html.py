"""Blocks to one HTML file that needs nothing beside it: no script, no font, no image from anywhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.page.blocks import Document, kind_of

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "page.html.jinja"


def html(page: Document) -> str:
    """The page as HTML, every text escaped. Raises EdgemlError where jinja2 is not installed."""
    return _template().render(page=page)


def _unbroken(text: str) -> str:
    """The text without line breaks inside `n = 397` and `95 %`."""
    return re.sub(r"\bn = (?=\d)", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", text).replace(" %", "\N{NO-BREAK SPACE}%")


@cache
def _template() -> Template:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise EdgemlError(
            "the page needs jinja2, which is not installed", hint="edgeml report --markdown, or: make onnx"
        ) from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["kind_of"] = kind_of
    environment.filters["unbroken"] = _unbroken
    environment.filters["drawing"] = Markup  # a plot's SVG, whose texts edgeml.plots has escaped
    return environment.get_template(_TEMPLATE)
