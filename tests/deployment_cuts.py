"""A program: deployments in a home of its own, each ended before one of the changes that it makes to the disk.

`python deployment_cuts.py HOME CASE PORT` goes through all of them, and after each looks at what is in use, and whether
the same deployment then comes to its end. It prints how often it cut, and fails where something is wrong.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

HOME, CASE, PORT = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ |= {"HOME": str(HOME / "device"), "PATH": f"{HOME}/programs:{os.environ['PATH']}"}

from edgeml_runtime.deployment import installer  # noqa: E402 - it asks for the home

DEVICE, FRESH = HOME / "device", HOME / "fresh"
ROOT = DEVICE / ".local/share/edgeml/tiny"
CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "subprocess.Popen"}
TEST = """cd "$(dirname "$0")" && sha256sum --quiet -c SHA256SUMS >/dev/null || exit 3
basename "$(pwd -P)" >> "$HOME/tested"
"""


def version(number):
    """A bundle's files by path."""
    files = {"run.sh": TEST, "variant/model": f"weights {number}", "edgeml_runtime/a.py": "same", "bundle.json": "{}"}
    files = {name: text.encode() for name, text in files.items()}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return files | {"SHA256SUMS": sums.encode()}


def asked(files, *, service=False, ready_s=5.0):
    """What the installer is asked, once all files lie where sending puts them."""
    listed = {name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}
    ask = {"root": str(ROOT), "token": os.urandom(4).hex(), "who": "me", "files": listed, "keep": False}
    ask |= {"version": listed["SHA256SUMS"][0], "service": service, "test_s": 60.0, "ready_s": ready_s}
    ask |= {"settings": f"port = {PORT}\n" if service else None}
    ask["lacks"] = list(installer.look(ask)["lacks"])
    installer.FILES.mkdir(parents=True, exist_ok=True)
    for content in files.values():
        if (digest := hashlib.sha256(content).hexdigest()) in ask["lacks"]:
            (installer.FILES / digest).write_bytes(content)
    return ask


def attempt(command, ask, cut=0):
    """Carry it out in a process of its own that the power leaves before its change number `cut`; whether it did."""
    pid = os.fork()
    if pid == 0:
        left = cut

        def count(event, arguments):
            nonlocal left
            if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        (DEVICE / "answer").write_text(json.dumps(command(ask)))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def in_use():
    """The version in use, once it was seen to be whole and to have passed its self-test; None where there is none."""
    if not (ROOT / "current").is_symlink():
        return None
    folder = (ROOT / "current").resolve(strict=True)
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, f"{name} is not whole"
    assert folder.name in (DEVICE / "tested").read_text().split(), "in use, and never tested"
    return folder.name


def main():
    """Every cut of one case."""
    old, new = version(1), version(2)
    ends = {"first": None, "update": None, "service": None, "unready": None, "rollback": None}
    assert CASE in ends
    service = {"service": CASE in ("service", "unready")}
    DEVICE.mkdir(parents=True)
    if CASE != "first":
        attempt(installer.install, asked(old, **service))
    if CASE == "rollback":
        attempt(installer.install, asked(new))
    before = in_use()
    assert (before is None) == (CASE == "first")
    shutil.copytree(DEVICE, FRESH, symlinks=True)
    ready = {"ready_s": 0.01} if CASE == "unready" else {}
    if CASE == "unready":
        (HOME / "www/ready").unlink()
    cut = 0
    while True:
        cut += 1
        shutil.rmtree(DEVICE)
        shutil.copytree(FRESH, DEVICE, symlinks=True)
        command = installer.rollback if CASE == "rollback" else installer.install
        was_cut = attempt(command, asked(new, **service, **ready), cut)
        now = in_use()
        wanted = asked(new)["version"]
        allowed = {before, wanted} if CASE != "rollback" else {before, asked(old)["version"]}
        assert now in allowed, (cut, now)
        if not was_cut:
            break
        attempt(installer.install, asked(new, **service, **ready))
        ended = before if CASE == "unready" else wanted
        assert in_use() == ended, (cut, json.loads((DEVICE / "answer").read_text()))
        left = sorted(path.name for path in ROOT.iterdir())
        assert not {"new", "switching"} & set(left), (cut, left)
        assert len(list((ROOT / "versions").iterdir())) <= 2, cut
    sys.stdout.write(str(cut - 1))


if __name__ == "__main__":
    main()
