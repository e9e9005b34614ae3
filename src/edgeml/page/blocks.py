"""What a page consists of, told apart from how it looks: HTML and Markdown are two renderings of the same blocks."""

from __future__ import annotations

from typing import Literal

from edgeml_runtime.types import Record

Word = Literal["pass", "fail", "cannot tell"]


class Statement(Record, frozen=True, kw_only=True, tag_field="kind", tag="statement"):
    """A verdict in words: `head` says it, `body` gives its grounds, `method` how they were had."""

    word: Word
    head: str
    body: str
    method: str = ""


class Text(Record, frozen=True, kw_only=True, tag_field="kind", tag="text"):
    """One paragraph."""

    text: str


class Listing(Record, frozen=True, kw_only=True, tag_field="kind", tag="listing"):
    """A list of sentences."""

    items: tuple[str, ...]


class Cell(Record, frozen=True, kw_only=True):
    """One cell of a table, with lines that say more of it. `quoted` text is the user's or a model's, kept as it is."""

    text: str
    notes: tuple[str, ...] = ()
    quoted: bool = False


class Table(Record, frozen=True, kw_only=True, tag_field="kind", tag="table"):
    """Rows under titles; each row's first cell is its title. Columns from `numbers_from` on are numbers."""

    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers_from: int = 1


class Panel(Record, frozen=True, kw_only=True):
    """One plot as SVG text, and its message in words."""

    label: str
    caption: str
    svg: str = ""


class Choice(Record, frozen=True, kw_only=True, tag_field="kind", tag="choice"):
    """Plots of which one is seen at a time; the reader chooses."""

    name: str
    legend: str
    panels: tuple[Panel, ...]


Block = Statement | Text | Listing | Table | Choice


def kind_of(block: Block) -> str:
    """The name of a block's kind, by which a rendering chooses what to do with it."""
    return str(block.__struct_config__.tag)


class Section(Record, frozen=True, kw_only=True):
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


class Part(Record, frozen=True, kw_only=True):
    """All sections about one task on one target."""

    title: str
    sections: tuple[Section, ...]


class Document(Record, frozen=True, kw_only=True):
    """A whole page. `warning` stands above everything else, `verdicts` before every part."""

    title: str
    summary: str
    verdicts: Section
    parts: tuple[Part, ...]
    footer: str
    warning: str = ""
