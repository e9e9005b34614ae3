"""edgeml opens no connection of its own: every command but `download` does its work where there is no network."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgeml.store import Store
from edgeml.targets import profile
from edgeml.wheels import default_python, requirements, wheel_folder
from tiny.commands import edgeml, gguf_model, inside
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

RECIPE = """
schema: edgeml.recipe/1
about: Lines continued by a small decoder.
download: ./tiny.gguf
quantize: {to: ["gguf:q4_0"]}
bench: {task: text-generation, data: lines.csv, threads: 1, warmups: 0, max_new_tokens: 3}
package: {variant: "gguf:q4_0"}
"""
COMMANDS = (
    ("list", "--json"),
    ("targets", "--json"),
    ("doctor", "--json"),
    ("quantize", "--to", "gguf:q8_0", "--json"),
    ("bench", "--threads", "1", "--max-new-tokens", "3", "--json"),
    ("package", "--json"),
    ("run", "recipe.yaml", "--json"),
)


def has_namespaces() -> bool:
    """Whether a process may be put where there is no network."""
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_namespaces(), reason="no network namespaces here")
def test_every_command_but_download_works_without_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    gguf_model(Store(tmp_path / "artifacts"))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "lines.csv").write_text("text,expected\nrent,house\n")
    own = profile(None)
    for wanted in requirements("gguf"):
        name, _, version = wanted.partition("==")
        write_wheel(wheel_folder(own, default_python(own), "gguf"), {}, name=name, version=version)

    command = ["unshare", "-rn", sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [end["verb"] for end in ends] == ["no network", *(command[0] for command in COMMANDS)]
    assert [end for end in ends if end["code"]] == []
    assert all(end["lines"] for end in ends[1:])


@pytest.mark.parametrize(
    "arguments", [("quantize", "--to", "onnx:int8"), ("bench", "tiny/onnx-fp32", "--threads", "1")]
)
def test_no_library_leaves_an_identity_of_the_machine_or_reports_to_its_maker(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    store, home = Store(tmp_path / "artifacts"), tmp_path / "home"
    onnx_variant(store.root / "tiny" / "onnx-fp32")
    gguf_model(store)
    home.mkdir()
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"):  # which would hide it
        monkeypatch.delenv(name, raising=False)

    edgeml(*arguments, HOME=str(home))

    assert not [path for path in home.rglob("*") if "microsoft" in str(path.relative_to(home)).lower()]


def main() -> None:
    """Where there is no network: say so, then how each command ended."""
    import socket

    with socket.socket() as link:
        reached = link.connect_ex(("192.0.2.1", 80)) == 0  # an address kept for documentation
    print(json.dumps({"verb": "no network", "code": int(reached)}))  # noqa: T201 - this is how it answers
    for arguments in COMMANDS:
        done = inside(*arguments)
        lines = [json.loads(line) for line in done.out.splitlines()]
        end = {"verb": arguments[0], "code": done.code, "lines": len(lines), "err": done.err if done.code else ""}
        print(json.dumps(end), flush=True)  # noqa: T201 - this is how it answers


if __name__ == "__main__":
    main()
