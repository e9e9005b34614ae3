"""What runs where there is no network, `python -m edgeml.privacy.inside PLAN ANSWER`: starts a bundle and asks it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeml.children import started
from edgeml.privacy.asking import Endpoint
from edgeml.privacy.confinement import alone, loopback_up, packets
from edgeml.privacy.rows import feedback_of, row_of, written
from edgeml.privacy.types import Plan, Seen, Tried
from edgeml_runtime.bundle import SITE, VARIANT
from edgeml_runtime.feedback.device import NAME as STORE
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.session import writes_text
from edgeml_runtime.types import VariantManifest

GIVEN, LOGS, STATE, HOME, TMP, COPIES = "given", "logs", "state", "home", "tmp", "while it ran"
ELSEWHERE = "elsewhere"  # what stands for folders that any program may write in
STAMP = "prepared"  # a file whose age parts what was there before any mark from what came later
FEEDBACK = ("feedback off", "feedback redacted", "feedback sealed")
_LONG_S = 600.0  # for a self-test or a prediction on a slow machine
_KEPT = range(200, 300)
_FLOATS = re.compile(r"\[\s*(-?\d+\.[\d.e+-]+),\s*(-?\d+\.[\d.e+-]+),\s*(-?\d+\.[\d.e+-]+)")


def main() -> None:
    """Carry out a plan, and write what was seen."""
    plan = read_record(Path(sys.argv[1]), Plan)
    loopback_up()
    read_only = alone(Path(plan.space).parent, plan.places)
    run = Run(plan)
    run.everything()
    write_record(Path(sys.argv[2]), Seen(tried=tuple(run.tried), read_only=read_only, answers=run.answers))


class Run:
    """The bundle's commands, one after the other, with everything that they say in files."""

    def __init__(self, plan: Plan) -> None:
        self.tried: list[Tried] = []
        self.answers: dict[str, tuple[str, ...]] = {}
        self._plan = plan
        self._folder, self._space = Path(plan.folder), Path(plan.space)
        self._manifest = read_record(self._folder / VARIANT / "variant.json", VariantManifest)

    def everything(self) -> None:
        """All of it. A command that ends with an error has been tried all the same, and the next one follows."""
        self._alone("self-test", "selftest", "--json")
        (self._space / STAMP).touch()
        self._predict()
        for name in FEEDBACK:
            self._serve(name)

    def _predict(self) -> None:
        for step, content in (("predict", self._rows("predict")), ("predict, broken", self._broken())):
            if content is None:
                self._did(step, "not tried: pictures and sounds are not marked")
                continue
            path = self._space / GIVEN / f"{step}.jsonl"
            path.write_bytes(content)
            more = ["--max-new-tokens", "16"] if writes_text(self._manifest.task) else []
            said = self._alone(step, "predict", "--input", str(path), *more)
            self._remember(step, said)

    def _rows(self, step: str) -> bytes | None:
        row = row_of(self._manifest.task, self._plan.canaries[step])
        return None if row is None else json.dumps(row).encode() + b"\n"

    def _broken(self) -> bytes:
        text = self._plan.canaries["predict, broken"].text
        return f'{{"text": "{text}", "{text}": nonsense {text}'.encode()

    def _serve(self, name: str) -> None:
        config = self._config(name)
        command = self._command("serve", "--config", str(config), "--port", "8080")
        with self._watched(name) as told, self._started(name, command) as child:
            endpoint = Endpoint(8080)
            if endpoint.wait(child):
                asked = self._ask(endpoint, name)
                (self._space / LOGS / f"{name} metrics").write_bytes(endpoint.metrics())
                self._copy(name)
                child.terminate()
                told.append(f"{asked}, then ended with {child.wait(60)}")
            else:
                told.append(f"not tried: it ended with {child.poll()}, {self._last_words(name)}")

    def _ask(self, endpoint: Endpoint, name: str) -> str:
        if name == FEEDBACK[0]:
            for step, ask in endpoint.requests(self._manifest, self._plan.canaries):
                with self._watched(step) as told:
                    status, body = ask()
                    told.append(f"status {status}")
                    self._remember(step, body)
            return "the endpoint was asked"
        canary = self._plan.canaries[name]
        status, _ = endpoint.feedback(feedback_of(self._manifest.task, canary))
        row = row_of(self._manifest.task, canary)
        if row is not None:
            endpoint.predict([row])
        return f"feedback was {'kept' if status in _KEPT else f'answered with {status}'}"

    def _said(self, name: str) -> str:
        return (self._space / LOGS / f"{name} stdout").read_text(encoding="utf-8", errors="replace")

    def _config(self, name: str) -> Path:
        """A configuration of the endpoint; its feedback lies in a folder of its own."""
        lines = ["request_bytes = 100000", "max_new_tokens = 16"]
        if name != FEEDBACK[0]:
            lines += ["[feedback]", f"file = {json.dumps(str(self._space / STATE / name / STORE))}"]
            lines += ["low_confidence = 1.0"]
        if name == FEEDBACK[2]:
            key = self._space / GIVEN / "key"
            key.touch(0o600)
            key.write_text(os.urandom(32).hex())
            lines += [f"key_file = {json.dumps(str(key))}"]
        path = self._space / GIVEN / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def _command(self, name: str, *more: str) -> tuple[str, ...]:
        if self._plan.own:
            return ("sh", str(self._folder / "run.sh"), name, *more)
        return (sys.executable, "-P", "-B", "-m", "edgeml_runtime", name, str(self._folder), *more)

    def _alone(self, step: str, *command: str) -> str:
        with self._watched(step) as told, self._started(step, self._command(*command)) as child:
            try:
                code = child.wait(_LONG_S)
            except subprocess.TimeoutExpired:
                told.append(f"stopped after {_LONG_S:g} s")
            else:
                told.append(f"ended with {code}")
        return self._said(step)

    @contextmanager
    def _started(self, name: str, command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
        logs = self._space / LOGS
        with (logs / f"{name} stdout").open("wb") as out, (logs / f"{name} stderr").open("wb") as err:
            options |= {"stdout": out, "stderr": err, "env": self._environment(), "cwd": self._space / TMP}
            with started(command, start_new_session=True, **{"stdin": subprocess.DEVNULL, **options}) as child:
                yield child

    def _environment(self) -> Mapping[str, str]:
        home = self._space / HOME
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        kept = {"LANG": "C.UTF-8", "PATH": path, "HOME": str(home), "TMPDIR": str(self._space / TMP)}
        kept |= {"XDG_CACHE_HOME": str(home / ".cache"), "XDG_STATE_HOME": str(home / ".local" / "state")}
        return kept | {"PYTHONPATH": self._plan.home}

    @contextmanager
    def _watched(self, step: str) -> Iterator[list[str]]:
        """Counts what wants to connect while a step is tried; the step's end is what is appended."""
        before, own_before = packets(), Endpoint.connections
        told: list[str] = []
        yield told
        after, own = packets(), Endpoint.connections - own_before
        local = after.connections - before.connections - own + after.datagrams - before.datagrams
        self._did(step, "; ".join(told), after.unrouted - before.unrouted, max(0, local))

    def _did(self, step: str, end: str, unrouted: int = 0, local: int = 0) -> None:
        self.tried.append(Tried(what=step, end=end, unrouted=unrouted, local=local))

    def _copy(self, name: str) -> None:
        """What lies there while the process runs, and may be gone when it has ended."""
        others = [one for one in FEEDBACK if not name.startswith(one)]
        ignored = shutil.ignore_patterns(f"{SITE}*", *others)
        for part in (HOME, TMP, STATE, ELSEWHERE):
            with contextlib.suppress(shutil.Error):  # what is gone by now
                shutil.copytree(self._space / part, self._space / COPIES / name / part, symlinks=True, ignore=ignored)

    def _last_words(self, name: str) -> str:
        text = (self._space / LOGS / f"{name} stderr").read_text(encoding="utf-8", errors="replace")
        return next((line for line in text.splitlines() if line.startswith("error: ")), "without a word")[:200]

    def _remember(self, step: str, said: str) -> None:
        """What stands for an answer: the first numbers of a vector, or a written text."""
        if found := _FLOATS.search(said):
            first = (", ".join(found.groups()), ",".join(found.groups()))
            self.answers[step] = (*first, struct.pack("<3f", *map(float, found.groups())).hex())
        elif texts := written(said):
            self.answers[step] = texts


if __name__ == "__main__":
    main()
