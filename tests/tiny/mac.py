"""A Mac's commands, that say what `tests/recorded/macos` has of them."""

from __future__ import annotations

from pathlib import Path

RECORDED = Path(__file__).parent.parent / "recorded" / "macos"


def recorded(name: str) -> str:
    """An output without the lines that say where its format is from."""
    lines = (RECORDED / f"{name}.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def commands(folder: Path, **said: dict[str, str]) -> str:
    """A PATH whose commands answer each of their arguments, `*` for any, with a recorded output."""
    folder.mkdir()
    for command, answers in said.items():
        for name in answers.values():
            (folder / f"{name}.txt").write_text(recorded(name), encoding="utf-8")
        cases = "\n".join(f"{words}) /bin/cat '{folder / name}.txt';;" for words, name in answers.items())
        script = folder / command
        script.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\n*) exit 1;;\nesac\n', encoding="utf-8")
        script.chmod(0o755)
    return str(folder)
