"""What a command says: results to stdout; progress, warnings and the next step to stderr.

Knows nothing of how values become text.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import IO, Any

import click

from edgeml import render
from edgeml.progress import Pace
from edgeml.store import Store
from edgeml.types import Report

_REDRAW_S = 0.1  # on a terminal
_LINE_S = 30.0  # elsewhere, where each line stays
VERDICT_CODES = {"fail": 4, "cannot tell": 5}  # the first that applies is the command's


def _none(value: Any) -> Iterable[str]:  # noqa: ARG001 - the signature of what tells some
    """No warnings."""
    return ()


class Session:
    """What every command needs: the artifacts folder, how to show results, and where progress goes."""

    def __init__(self, artifacts: Path, *, as_json: bool, named: bool) -> None:
        self.store = Store(artifacts)
        self.progress = Bars()
        self._as_json = as_json
        self._again = f" --artifacts {quote(str(artifacts))}" if named else ""

    def show(self, values: Iterable[Any], warnings: Callable[[Any], Iterable[str]] = _none) -> list[Any]:
        """Results to stdout, tables for a person, or at once a JSON object a line; gives them back.

        `warnings` tells what a reader must know of one.
        """
        shown: list[Any] = []
        try:
            for value in values:
                shown.append(value)
                if self._as_json:
                    self._tell_json(value)
        finally:  # what was done before a failure is shown, too
            self.progress.close()
            if shown and not self._as_json:
                _print(render.as_text(shown, shutil.get_terminal_size((render.WIDTH, 0)).columns))
            for text in (text for one in shown for text in warnings(one)):
                self.warn(text)
        return shown

    def warn(self, text: str) -> None:
        """What a reader must know, to stderr."""
        self.progress.close()
        click.echo(f"warning: {text}", err=True)

    def note(self, text: str) -> None:
        """What is worth knowing before the work begins, to stderr."""
        self.progress.close()
        click.echo(text, err=True)

    def judge(self, *reports: Report) -> None:
        """End the command with the code of the reports' verdicts; nothing happens where all passed."""
        words = {verdict.verdict for report in reports for verdict in report.verdicts}
        code = next((code for word, code in VERDICT_CODES.items() if word in words), 0)
        if code:
            raise click.exceptions.Exit(code)

    def next(self, commands: Iterable[str]) -> None:
        """The one or two commands that make sense now, to stderr."""
        self.progress.close()
        typed = [text + self._again if text.startswith("edgeml ") else text for text in commands]
        click.echo(f"next: {'   or   '.join(typed)}", err=True)

    def _tell_json(self, value: Any) -> None:
        self.progress.close()
        for line in render.as_json(value):
            _print(line)
        for text in getattr(value, "warnings", ()):
            self.warn(text)


def _print(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError as error:  # `edgeml list | head`: nobody reads on, and that is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(0) from error


class Bars:
    """Progress on stderr: on a terminal one bar, for the step under way; else lines, when a step begins and as it goes.

    Several threads may report; `clock` gives seconds.
    """

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._lock = threading.RLock()
        self._step: str | None = None
        self._began_s = self._told_s = 0.0
        self._pace = Pace()
        self._bar: Any = None

    def __call__(self, step: str, done: int, total: int) -> None:
        """Report a step."""
        with self._lock:
            if step != self._step:
                self._begin(step, done, total)
            now_s = self._clock()
            self._pace.note(now_s, done)
            every_s = _LINE_S if self._bar is None else _REDRAW_S
            if now_s - self._told_s >= every_s:
                self._tell(done, total, now_s)

    def close(self) -> None:
        """End the step under way: its bar becomes one plain line."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
                print(f"{self._step}  {self._clock() - self._began_s:.1f} s", file=self._stream, flush=True)
            self._step = None

    def _begin(self, step: str, done: int, total: int) -> None:
        self.close()
        self._step, self._pace = step, Pace()
        self._began_s = self._told_s = self._clock()
        if self._stream.isatty():
            self._bar = _bar(self._stream, step)
            self._tell(done, total, self._began_s)
        else:
            print(step if done == total > 0 else f"{step} ...", file=self._stream, flush=True)

    def _tell(self, done: int, total: int, now_s: float) -> None:
        self._told_s = now_s
        left_s = self._pace.left_s(now_s, total)
        ended = done == total > 0
        known = left_s is not None or ended  # else a share would stand still, and say that nothing is done
        left = f"{_clock(left_s)} left" if left_s is not None else "" if ended else "time left unknown"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total if known else None, left=left)
            self._bar.refresh()
            return
        share = f"{100 * done // total} %, " if known else ""
        print(f"{self._step}: {share}{_clock(now_s - self._began_s)} so far, {left}", file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _bar(stream: IO[str], step: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    name = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    left = TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, justify="right"))
    columns = (name, BarColumn(bar_width=20), TimeElapsedColumn(), left)
    # Drawn only when work reports itself: a thread that redraws would share the processor with what is measured.
    progress = Progress(*columns, console=Console(file=stream), transient=True, expand=True, auto_refresh=False)
    progress.add_task(step, total=None, left="")
    progress.start()
    return progress
