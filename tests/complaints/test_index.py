"""The page about complaints names tests that exist, and leaves out none of the rows."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
# The numbers of the complaints as they were collected; those between were duplicates of others.
ROWS = {
    *(1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 30, 32, 33, 34, 37),
    *(39, 40, 42, 43, 44, 45, 47, 50, 51, 52, 54, 55, 56, 57, 59, 60, 62, 63),
}


def rows(heading):
    """The cells of each row of the table below a heading."""
    part = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named(text):
    return re.findall(r"`([\w/]+\.py)::(\w+)`", text)


def test_every_row_is_shown_or_has_its_reason():
    shown = [int(row[0]) for row in rows("Shown")]
    missing = [int(row[0]) for row in rows("Not shown")]

    assert len(ROWS) == 48
    assert sorted(shown + missing) == sorted(ROWS)
    assert all(row[-1] for heading in ("Shown", "Further", "Not shown") for row in rows(heading))


def test_every_test_that_is_named_exists():
    known = {}
    for path in TESTS.rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known[path.relative_to(TESTS).as_posix()] = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    lost = [f"{file}::{test}" for file, test in named(PAGE) if test not in known.get(file, ())]

    assert not lost
    assert all(named(row[3]) for row in rows("Shown"))
    assert all(named(row[1]) for row in rows("Further"))


def test_every_thread_is_written_so_that_it_can_be_found():
    threads = {one.strip() for row in (*rows("Shown"), *rows("Not shown")) for one in row[1].split(",")}
    assert {one for one in threads if not re.fullmatch(r"([\w.-]+/)?[\w.-]+#\d+", one)} == {
        "(found while the list was made)"
    }
