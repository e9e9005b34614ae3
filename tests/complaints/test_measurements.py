"""Measuring asks nobody for a password.

Threads: mlco2/codecarbon#731, #736.
"""

import ast
from pathlib import Path

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))


def commands(tree):
    """What is run: lists that begin with a program's name, and the texts of shells."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
            yield [one.value for one in node.elts if isinstance(one, ast.Constant)]


def test_no_command_of_edgemls_own_becomes_root_by_asking():
    """mlco2/codecarbon#731, #736: in the midst of a run somebody was asked for root's password."""
    found = {
        (path.name, *map(str, command))
        for path in SOURCES
        for command in commands(ast.parse(path.read_text(encoding="utf-8")))
        if command[0] == "sudo"
    }
    assert not [command for command in found if "-n" not in command]  # -n: refused rather than asked


def test_a_shell_elsewhere_is_never_asked_either():
    lines = [line for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines() if "sudo -" in line]
    asked = [line for line in lines if "sudo -n" not in line and "sudo --" not in line]
    assert not [line for line in asked if "hint" not in line and not line.lstrip().startswith("#")], asked
