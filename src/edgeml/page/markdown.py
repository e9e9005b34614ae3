"""Blocks to Markdown as GitHub renders it, for a pull request. Plots become their message in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from edgeml.page.blocks import Block, Cell, Choice, Document, Listing, Statement, Table, Text

_SHAPES = {"pass": "\N{CHECK MARK}", "fail": "\N{BALLOT X}", "cannot tell": "?"}
_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")


def markdown(page: Document) -> str:
    """The page as Markdown, every text escaped."""
    lines = [f"# {_plain(page.title)}", "", _plain(page.summary), ""]
    if page.warning:
        lines = [f"**{_plain(page.warning)}**", "", *lines]
    lines += [f"## {_plain(page.verdicts.title)}", "", *_blocks(page.verdicts.blocks)]
    for part in page.parts:
        lines += [f"## {_plain(part.title)}", ""]
        for section in part.sections:
            lines += [f"### {_plain(section.title)}", "", *_blocks(section.blocks)]
    return "\n".join([*lines, _plain(page.footer)]) + "\n"


def _blocks(found: tuple[Block, ...]) -> Iterator[str]:
    for block in found:
        yield from _block(block)
        yield ""


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Statement):
        method = f"<br>{_plain(block.method)}" if block.method else ""
        yield f"{_SHAPES[block.word]} **{_plain(block.head)}**<br>{_plain(block.body)}{method}"
    elif isinstance(block, Text):
        yield _plain(block.text)
    elif isinstance(block, Listing):
        yield from (f"- {_plain(item)}" for item in block.items)
    elif isinstance(block, Choice):
        yield from (f"- {_plain(panel.caption)}" for panel in block.panels)
    else:
        yield from _table(block)


def _table(block: Table) -> Iterator[str]:
    yield f"**{_plain(block.caption)}**"
    yield ""
    yield f"| {' | '.join(map(_plain, block.titles))} |"
    yield f"|{''.join('---:|' if number >= block.numbers_from else '---|' for number in range(len(block.titles)))}"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in block.rows)


def _cell(one: Cell) -> str:
    if one.quoted:  # in a code element nobody is mentioned, and nothing is a link
        inner = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", escape(one.text, quote=False))
        return f"<code>{'<br>'.join(inner.splitlines())}</code>"
    return "<br>".join(map(_plain, (one.text, *one.notes)))


def _plain(text: str) -> str:
    """Text that Markdown and HTML take for nothing but text, on one line."""
    plain = _SPECIAL.sub(r"\\\1", escape(" ".join(text.split()), quote=False))
    return plain.replace("@", "@<!-- -->")  # else GitHub calls whoever has that name
