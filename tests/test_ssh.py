"""A job on a device over SSH: brought once, run apart from the connection, found again, and ended or accounted for.

The device is `ssh_server`'s. Its Python waits at a gate before the worker's first line, where a test says so.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

import ssh_server
from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.targets import profile, ssh
from edgeml.targets.emulator import emulator
from edgeml.targets.ssh import store, work
from edgeml.wheels import cached_wheels, missing_wheels, wheel_folder
from edgeml_runtime.types import Generate, Job
from tiny.gguf import llama_gguf
from tiny.pictures import image_variant, picture_folder
from tiny.threads import meanwhile
from tiny.variants import gguf_variant, onnx_variant
from tiny.wheels import write_wheel

BASE = ".cache/edgeml/bench"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(work, "PAUSES_S", (0.01,) * 200)


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    return onnx_variant(tmp_path_factory.mktemp("variant") / "v").path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """What stands for all that a format needs; the rest is in the device's own Python."""
    return [write_wheel(tmp_path_factory.mktemp("wheels"), {"a_model/__init__.py": b"x = 1\n"})]


@pytest.fixture
def up(tmp_path, wheels):
    """A device that was never met, and what is reached of it."""
    with ssh_server.device(tmp_path) as device, reached(device, wheels) as found:
        yield device, found


@pytest.fixture(scope="module")
def _known(tmp_path_factory, wheels, variant):
    with ssh_server.device(tmp_path_factory.mktemp("known")) as device, reached(device, wheels) as found:
        ssh.prepare([job_of(variant)], found, tell=str, progress=silent)
        yield device, found


@pytest.fixture
def known(_known):
    """A device that has all that jobs with `variant` need."""
    device, found = _known
    yield device, found
    device.link.is_down = False
    device.kill_all()
    (device.home / "gate").unlink(missing_ok=True)
    shutil.rmtree(device.home / BASE / "jobs", ignore_errors=True)


@contextmanager
def reached(device, wheels, wanted=None):
    for name in ("python3", f"python3.{sys.version_info.minor}"):
        device.program(name, f'[ -x "$HOME/gate" ] && . "$HOME/gate"\nexec {sys.executable} "$@"')
    with ssh.Connection(device.host, options=device.options) as connection:
        yield ssh.reached(connection, wanted, wheels_for=lambda *_: wheels)


class Gate:
    """In front of each worker: `started` holds until one came; `open` lets it, and all that follow, pass."""

    def __init__(self, device):
        self._home = device.home
        self._count = device.folder / "count"
        self._came, self._go = device.folder / "came", device.folder / "go"
        for path in (self._came, self._go):
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        self._count.write_text("")
        self._measuring = threading.Event()
        script = f"echo x >> {self._count}; echo x > {self._came}; cat {self._go} > /dev/null"
        self.write(script)

    def write(self, script):
        gate = self._home / "gate"
        gate.write_text(f'case "$*" in "-P -m edgeml_runtime.worker"*) {script};; esac\n')
        gate.chmod(0o755)

    def started(self):
        """A worker is at the gate, and whoever asked for it knows."""
        self._came.read_text()
        assert self._measuring.wait(20)

    def progress(self, step, done, total):
        if step.startswith("measure"):
            self._measuring.set()

    def open(self, step="measure", *_):
        if not step.startswith("measure"):
            return
        (self._home / "gate").unlink()
        self._go.write_text("")

    @property
    def count(self):
        return self._count.read_text().count("x")


def job_of(variant, **fields):
    rows = tuple({"sentence1": f"a {n}", "sentence2": f"b {n * n}", "score": n} for n in range(6))
    own = {"task": "sentence-similarity", "target": "laptop", "threads": 1, "warmups": 1, "repeats": 3, "seed": 1}
    return Job(variant=str(variant), **{**own, "rows": rows} | fields)


def at_rest(device):
    """Waits until no job runs: its lock is given back by the last of its processes."""
    with (device.home / BASE / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def left(device):
    """What is neither complete nor wanted any more."""
    found = [path.name for path in (device.home / BASE).rglob("*") if path.is_file()]
    jobs = device.home / BASE / "jobs"
    return [name for name in found if name.endswith(".part")] + [path.name for path in jobs.glob("*")]


def test_a_job_runs_there_and_the_second_time_nothing_is_sent(up, variant):
    device, found = up
    told, steps = [], []
    ssh.prepare([job_of(variant)], found, tell=told.append, progress=silent)
    first = ssh.run(job_of(variant), found, progress=lambda step, *_: steps.append(step))

    latency = next(sample for sample in first.samples if sample.metric == "latency")
    assert (len(latency.values), len(first.answers), first.environment.emulator) == (3, 6, None)
    assert (found.profile.name, found.python) == (profile(None).name, f"3.{sys.version_info.minor}")
    assert told[0].startswith("first contact with pi@device: 0.")
    assert told[0].endswith("MB to send; it stays in ~/.cache/edgeml/bench there until --clean")
    assert steps == ["measure on pi@device, which tells nothing while the clock runs"]
    assert left(device) == []
    assert ssh.plan(found, ssh.needs(found, [variant])).sentence is None
    assert (device.home / BASE).stat().st_mode & 0o077 == 0


def test_pictures_travel_once_each_and_what_is_said_of_one_names_it_as_it_is_here(up, tmp_path):
    device, found = up
    variant = image_variant(tmp_path / "images", name="tiny/onnx-fp32")
    rows = [{"file": str(path)} for path in sorted(picture_folder(tmp_path / "some", 1).rglob("*.png"))]
    twin = tmp_path / "twin.png"
    twin.write_bytes(Path(rows[0]["file"]).read_bytes())
    job = job_of(variant, task="image-classification", rows=(*rows, {"file": str(twin)}, rows[1]))

    answers = ssh.run(job, found, progress=silent).answers
    assert len(answers) == 5
    assert (answers[3], answers[4]) == (answers[0], answers[1])

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(EdgemlError, match=r"broken.png: a picture cannot be decoded") as caught:
        ssh.run(replace(job, rows=({"file": str(broken)},)), found, progress=silent)
    assert caught.value.message.startswith(str(broken))
    assert left(device) == []


def test_what_a_worker_refuses_or_dies_of_is_said_as_here(known, variant):
    device, found = known
    with pytest.raises(EdgemlError, match=r"^tiny/onnx-fp32 generates no text"):
        ssh.run(job_of(variant, task="text-generation", rows=({"text": "a"},)), found, progress=silent)
    gate = Gate(device)
    gate.write("echo oh >&2; kill -SEGV $$")
    with pytest.raises(EdgemlError, match=rf"^the worker died of SIGSEGV on {variant}$") as caught:
        ssh.run(job_of(variant), found, progress=silent)
    assert "oh" in caught.value.hint
    gate.write("echo OSError: No space left on device >&2; exit 1")
    with pytest.raises(EdgemlError, match=r"^the disk of pi@device is full$"):
        ssh.run(job_of(variant), found, progress=silent)
    gate.write("echo Traceback >&2; exit 1")
    with pytest.raises(RuntimeError, match="Traceback"):
        ssh.run(job_of(variant), found, progress=silent)
    assert left(device) == []


def test_a_connection_that_breaks_while_sending_goes_on_with_the_rest(up, variant):
    device, found = up
    wanted = ssh.needs(found, [variant])
    before = ssh.plan(found, wanted)
    device.link.cut_after = 150_000
    with pytest.raises(ssh.ConnectionLost):
        store.bring(found, wanted, before, progress=silent)
    while device.running():  # what came before the end is written down first
        pass
    after = ssh.plan(found, wanted)

    assert after.send_bytes < before.send_bytes - 50_000
    device.link.cut_after = 50_000
    ssh.prepare([job_of(variant)], found, tell=str, progress=silent)
    assert ssh.plan(found, wanted).sentence is None


def test_a_job_outlives_the_connection_and_is_waited_for_again(known, variant):
    device, found = known
    gate = Gate(device)

    def cut():
        gate.started()
        device.link.cut()
        gate.open()

    with meanwhile(cut):
        outcome = ssh.run(job_of(variant), found, progress=gate.progress)

    assert (len(outcome.answers), outcome.warnings, gate.count) == (6, (), 1)


@pytest.mark.parametrize("ended", [False, True])
def test_the_same_command_finds_a_job_whose_device_was_away(known, variant, monkeypatch, ended):
    device, found = known
    gate = Gate(device)
    monkeypatch.setattr(work, "PAUSES_S", (0.01,) * 3)

    def vanish():
        gate.started()
        device.link.is_down = True
        device.link.cut()

    with meanwhile(vanish), pytest.raises(ssh.ConnectionLost) as caught:
        ssh.run(job_of(variant), found, progress=gate.progress)
    assert caught.value.hint == "run the same command again: it goes on there"

    device.link.is_down = False
    if ended:
        gate.open()
        at_rest(device)
    outcome = ssh.run(job_of(variant), found, progress=silent if ended else gate.open)

    assert (len(outcome.answers), gate.count) == (6, 1)
    assert ["measured before this command" in text for text in outcome.warnings] == [True] * ended


def test_a_device_that_restarts_in_the_middle_is_noticed_and_the_job_dropped(known, variant):
    device, found = known
    gate = Gate(device)

    def restart():
        gate.started()
        device.link.is_down = True
        device.reboot()
        device.link.is_down = False

    with meanwhile(restart), pytest.raises(EdgemlError, match="pi@device restarted while it measured"):
        ssh.run(job_of(variant), found, progress=gate.progress)
    assert left(device) == []


def test_a_job_of_which_everything_was_killed_is_no_restart(known, variant):
    device, found = known
    gate = Gate(device)

    def kill():
        gate.started()
        device.kill_all()

    with meanwhile(kill), pytest.raises(EdgemlError, match="the job was killed on pi@device"):
        ssh.run(job_of(variant), found, progress=gate.progress)


def test_a_restart_that_nobody_watched_is_told_by_the_next_run(known, variant, monkeypatch):
    device, found = known
    gate = Gate(device)
    monkeypatch.setattr(work, "PAUSES_S", ())

    def vanish():
        gate.started()
        device.link.is_down = True
        device.reboot()

    with meanwhile(vanish), pytest.raises(ssh.ConnectionLost):
        ssh.run(job_of(variant), found, progress=gate.progress)
    (device.home / "gate").unlink()
    device.link.is_down = False

    outcome = ssh.run(job_of(variant), found, progress=silent)
    assert outcome.warnings == ("pi@device restarted in the middle of an earlier attempt",)


def test_two_benches_do_not_slow_each_other(known, variant):
    device, found = known
    gate = Gate(device)
    with meanwhile(partial(ssh.run, job_of(variant), found, progress=gate.progress)):
        gate.started()
        with reached_again(device, found) as other:
            for rows in (({"sentence1": "x", "sentence2": "y", "score": 1},), job_of(variant).rows[:3]):
                with pytest.raises(EdgemlError, match=r"pi@device has been measuring for \S+@\S+ for \d+ s, and two"):
                    ssh.run(job_of(variant, rows=rows), other, progress=silent)
            with pytest.raises(EdgemlError, match="has been measuring"):
                ssh.clean(other.connection)
        gate.open()
    assert gate.count == 1


@contextmanager
def reached_again(device, found):
    with ssh.Connection(device.host, options=device.options) as connection:
        yield found._replace(connection=connection)


def test_an_interrupt_ends_the_job_there(known, variant):
    device, found = known
    gate = Gate(device)

    def interrupt():
        gate.started()
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(interrupt), pytest.raises(KeyboardInterrupt):
        ssh.run(job_of(variant), found, progress=gate.progress)
    at_rest(device)
    assert left(device) == []


def test_too_little_room_is_refused_before_anything_is_sent(tmp_path, wheels, variant):
    with ssh_server.device(tmp_path, disk_bytes=50_000_000) as device, reached(device, wheels) as found:
        with pytest.raises(
            EdgemlError, match=r"pi@device has 50 MB free, and 0\.\d MB are needed beside 100 MB to spare"
        ) as caught:
            ssh.run(job_of(variant), found, progress=silent)
        # Of a deployment it must be true as well, and where a bench is refused it never comes to its --clean.
        assert caught.value.hint == (
            "make room there: ssh pi@device df -h; what earlier benches and attempts brought goes by: "
            "ssh pi@device rm -rf .cache/edgeml/bench"
        )
        assert not (device.home / ".cache/edgeml").exists()


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_no_half_file(tmp_path, wheels, variant, monkeypatch):
    monkeypatch.setattr(store, "_SPARE_BYTES", 0)
    with ssh_server.device(tmp_path, disk_bytes=4_000_000) as device, reached(device, wheels) as found:
        wanted = ssh.needs(found, [variant])
        planned = ssh.plan(found, wanted)
        filler = device.home / "filler"
        filler.write_bytes(bytes(3_850_000))
        with pytest.raises(EdgemlError, match=r"^the disk of pi@device is full$"):
            store.bring(found, wanted, planned, progress=silent)
        assert left(device) == []
        filler.unlink()
        ssh.prepare([job_of(variant)], found, tell=str, progress=silent)
        assert ssh.plan(found, wanted).sentence is None


def test_a_file_that_arrives_otherwise_than_it_was_sent_is_not_kept(up, variant):
    device, found = up
    wanted = ssh.needs(found, [variant])
    path, piece = next(iter(wanted.folders[variant].pieces.items()))
    wanted.folders[variant].pieces[path] = piece._replace(sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(EdgemlError, match=r"^1 file did not arrive on pi@device as sent$"):
        store.bring(found, wanted, ssh.plan(found, wanted), progress=silent)
    assert left(device) == []


def test_a_file_that_lost_its_content_with_the_power_is_sent_again(known, variant):
    device, found = known
    (weights,) = (device.home / BASE / "trees").glob("*/model.onnx")
    os.truncate(weights, 0)
    wanted = ssh.needs(found, [variant])

    assert [piece.content for piece in ssh.plan(found, wanted).missing] == [variant / "model.onnx"]
    ssh.prepare([job_of(variant)], found, tell=str, progress=silent)
    assert ssh.plan(found, wanted).sentence is None


def test_over_a_slow_link_the_time_is_told_before_and_the_progress_within(up, variant, monkeypatch):
    device, found = up
    monkeypatch.setattr(store, "_WORTH_TIMING_BYTES", 1)
    monkeypatch.setattr(store, "_TRIAL_S", 0.02)
    monkeypatch.setattr(store, "_NOISE_S", 0.02)
    monkeypatch.setattr(store, "_CHUNK_S", 0.1)
    monkeypatch.setattr(store, "_CHUNK_BYTES", (1 << 16, 1 << 26))
    device.link.bytes_s = 1_000_000
    told, steps = [], []
    ssh.prepare([job_of(variant)], found, tell=told.append, progress=lambda *step: steps.append(step))

    planned = told[0].partition("at ")[2].partition(" MB/s")[0]
    assert 0.2 < float(planned) < 2
    assert " to send, about " in told[0]
    sending = [done for step, done, total in steps if step == "send to pi@device" and total]
    assert len(sending) >= 3
    assert sending == sorted(sending)


def test_cleaning_removes_what_was_brought_and_nothing_else(up, variant):
    device, found = up
    own = device.home / ".cache/edgeml/models"
    own.mkdir(parents=True)
    ssh.prepare([job_of(variant)], found, tell=str, progress=silent)

    assert ssh.clean(found.connection) > 300_000
    assert [path.name for path in own.parent.iterdir()] == ["models"]
    assert ssh.clean(found.connection) == 0


def test_a_package_that_cannot_run_there_is_named(known, variant, tmp_path):
    _, found = known
    bad = write_wheel(tmp_path / "bad", {"b_model/__init__.py": b"import os\nos.abort()\n"}, name="b-model")
    with pytest.raises(EdgemlError, match=r"^b_model does not run on pi@device: "):
        ssh.run(job_of(variant), found._replace(wheels_for=lambda *_: [bad]), progress=silent)
    other = write_wheel(tmp_path / "other", {}, tag="cp39-cp39-linux_x86_64")
    with pytest.raises(EdgemlError, match=r"^the runtime does not fit pi@device: "):
        ssh.run(job_of(variant), found._replace(wheels_for=lambda *_: [other]), progress=silent)


def test_a_device_that_is_not_what_it_should_be_is_refused_with_the_reason(tmp_path, wheels):
    with (
        ssh_server.device(tmp_path) as device,
        pytest.raises(EdgemlError, match="is no Raspberry Pi 5: ") as caught,
        reached(device, wheels, profile("pi5")),
    ):
        pass
    assert "x86_64" in caught.value.message


def test_a_device_whose_python_is_too_old_is_told_so(up):
    _, found = up
    with pytest.raises(EdgemlError, match=r"needs Python 3\.11 or newer, and has 3\.9, 3\.7"):
        ssh._python("pi", replace(found.probe, pythons=("3.9", "3.7")), found.profile)
    assert ssh._python("pi", replace(found.probe, pythons=("3.14", "3.13", "3.9")), profile("pi5")) == "3.13"
    assert ssh._python("pi", replace(found.probe, pythons=("3.14",)), profile("pi5")) == "3.14"


def test_a_link_too_fast_to_be_timed_gives_no_more_than_a_bound(up, variant, monkeypatch):
    monkeypatch.setattr(store, "_WORTH_TIMING_BYTES", 1)
    monkeypatch.setattr(store, "_NOISE_S", 60.0)
    _, found = up

    told = ssh.plan(found, ssh.needs(found, [variant])).sentence
    assert re.match(r"first contact with pi@device: 0\.\d MB to send, less than \d s at more than 0\.1 MB/s; ", told)


@pytest.mark.real
def test_a_gguf_runs_on_a_pi_by_a_wheel_that_was_compiled_here(emulator_cache, tmp_path):
    pi5 = profile("pi5")
    emulated = emulator(pi5, "onnx")
    if missing_wheels(wheel_folder(pi5, emulated.python, "gguf"), "gguf"):
        pytest.skip("edgeml runtime build --target pi5 was not run")
    gguf = gguf_variant(tmp_path / "v", llama_gguf(tmp_path / "tiny.gguf"))
    job = job_of(gguf, task="text-generation", rows=({"text": "a"},), generate=Generate(max_new_tokens=4))
    with (
        ssh_server.virtual_pi(tmp_path, emulated.qemu, emulated.root, cpu=emulated.cpu) as device,
        ssh.Connection(device.host, options=device.options) as connection,
    ):
        found = ssh.reached(connection, pi5, wheels_for=cached_wheels)
        outcome = ssh.run(job, found, progress=silent)

    assert (outcome.environment.machine, outcome.environment.device) == ("aarch64", ssh_server.PI_5)
    assert outcome.environment.emulator.startswith("qemu")
    assert outcome.answers
