"""A bundle on a device: sent by what it lacks, tested there beside what runs, switched to at once, and taken back.

The device is `ssh_server`'s. Its Python waits at a gate before the self-test, where a test says so.
"""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

import ssh_server
from edgeml.bundles import kind_of
from edgeml.deploy import Manner, deploy, deploy_all, roll_back
from edgeml.download import runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.inventory import Deployment, Pace, read_inventory, require_deployed, versions_on
from edgeml.package import bundle_path, package
from edgeml.parcels import fitting, opened
from edgeml.progress import silent
from edgeml.signing import sign
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.targets.emulator import emulator
from edgeml.targets.ssh import store as sending
from edgeml.targets.ssh import work
from edgeml.targets.types import Device, Probe
from edgeml_runtime.bundle import check_files, read_bundle
from edgeml_runtime.deployment.files import kept
from edgeml_runtime.deployment.service import SETTINGS, unit_of, unit_text
from edgeml_runtime.types import File
from tiny.bundles import changed, goldens_broken, runtime_fixed, tiny_bundle
from tiny.commands import inside
from tiny.threads import meanwhile
from tiny.variants import onnx_variant

ROOT = ".local/share/edgeml/tiny-onnx-fp32"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a bundle, the same with another runtime, and one whose answers are not its goldens."""
    root = tmp_path_factory.mktemp("bundles")
    base = tiny_bundle(root)
    changed(base, root / "fixed", runtime_fixed)
    changed(base, root / "broken", goldens_broken)
    return root


@pytest.fixture(scope="module")
def base(made):
    with opened("tiny", store=Store(made / "artifacts")) as parcel:
        yield parcel


@pytest.fixture(scope="module")
def fixed(made):
    with opened(str(made / "fixed"), store=Store(made / "artifacts")) as parcel:
        yield parcel


@pytest.fixture(scope="module")
def broken(made):
    with opened(str(made / "broken"), store=Store(made / "artifacts")) as parcel:
        yield parcel


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(work, "PAUSES_S", (0.01,) * 200)
    monkeypatch.setenv("EDGEML_CONFIG", str(tmp_path / "config"))


@contextlib.contextmanager
def laptop(folder, monkeypatch, **how):
    """A device whose programs are this machine's own, and which a plain `ssh` reaches."""
    with ssh_server.device(folder, **how) as found:
        for name in ("python3", f"python3.{sys.version_info.minor}"):
            found.program(name, f'[ -x "$HOME/gate" ] && . "$HOME/gate"\nexec {sys.executable} "$@"')
        monkeypatch.setenv("PATH", f"{found.client}:{os.environ['PATH']}")
        yield found


@pytest.fixture(scope="module")
def _up(tmp_path_factory, base):
    """A device with the first version in use."""
    with pytest.MonkeyPatch.context() as monkeypatch, laptop(tmp_path_factory.mktemp("up"), monkeypatch) as found:
        assert to(found, base).outcome == "deployed"
        shutil.copytree(found.home / ".local", found.folder / "first", symlinks=True)
        yield found


@pytest.fixture
def up(_up, monkeypatch):
    """A device with nothing installed."""
    monkeypatch.setenv("PATH", f"{_up.client}:{os.environ['PATH']}")
    shutil.rmtree(_up.home / ".local", ignore_errors=True)
    yield _up
    _up.link.is_down, _up.link.cut_after = False, None
    _up.kill_all()
    _up._tell_host_key(_up._host_key)
    (_up.home / "gate").unlink(missing_ok=True)
    for name in (".cache/edgeml", ".config/systemd"):
        shutil.rmtree(_up.home / name, ignore_errors=True)


@pytest.fixture
def running(up):
    """A device with the first version in use."""
    shutil.copytree(up.folder / "first", up.home / ".local", symlinks=True)
    return up


def at(device):
    return Device(name="kitchen", host=device.host)


def to(device, parcel, progress=silent, **manner):
    return deploy(parcel, at(device), Manner(**manner), progress=progress)


def in_use(device):
    """The version in use, once it was seen to be whole."""
    link = device.home / ROOT / "current"
    check_files(link)
    return link.readlink().name


def works(device):
    """The version in use passes its own self-test there."""
    run = [device.client / "ssh", device.host, f"sh {ROOT}/current/run.sh selftest"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return in_use(device)


def versions(device):
    return sorted(path.name for path in (device.home / ROOT / "versions").iterdir())


def left(device):
    """What should be gone after each attempt."""
    root = device.home / ROOT
    found = [name for name in ("new", "switching") if (root / name).exists()]
    return found + [path.name for path in (device.home / ".cache/edgeml/bench/files").glob("*")]


class Gate:
    """In front of each self-test on a device: `came` holds until one is there, `open` lets it go on."""

    def __init__(self, device):
        self._home = device.home
        self._came, self._go = device.folder / "came", device.folder / "go"
        for path in (self._came, self._go):
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        gate = self._home / "gate"
        gate.write_text(f'case "$*" in *selftest*) echo x > {self._came}; cat {self._go} > /dev/null;; esac\n')
        gate.chmod(0o755)

    def came(self):
        self._came.read_text()

    def open(self):
        (self._home / "gate").unlink()
        self._go.write_text("")


def test_versions_of_other_programs_beside_an_installation_are_left_alone(tmp_path):
    other = tmp_path / "python" / "versions"
    (other / "3.11").mkdir(parents=True)
    (other / "3.11" / "tool").write_text("theirs")
    (other / "alias").write_text("3.11")
    assert kept(tmp_path / "tiny") == {}


def test_what_is_in_use_already_is_not_sent_again_nor_tested(running, base):
    again = to(running, base)

    assert (again.outcome, again.sent_bytes) == ("unchanged", 0)
    assert (again.before, again.after) == (base.version, base.version)
    assert in_use(running) == base.version
    assert left(running) == []


def test_a_fixed_runtime_ships_without_the_model_and_can_be_taken_back(running, base, fixed):
    told = to(running, fixed)

    changed_bytes = sum(
        fixed.pieces[name].size_bytes for name in ("edgeml_runtime/pixels.py", "bundle.json", "SHA256SUMS")
    )
    assert (told.outcome, told.sent_bytes) == ("deployed", changed_bytes)
    assert (told.before, told.after, in_use(running)) == (base.version, fixed.version, fixed.version)
    old, new = (running.home / ROOT / "versions" / one.version / "variant/model.onnx" for one in (base, fixed))
    assert old.samefile(new)

    assert roll_back(at(running), Manner()).after == base.version == in_use(running)


def test_where_there_is_no_version_before_the_one_in_use_stays_and_the_hint_says_so(running, base):
    told = roll_back(at(running), Manner())

    assert (told.outcome, told.after, told.reason) == ("failed", base.version, "there is no previous version")
    assert told.hint == "what is in use stays; deploy the older bundle itself to have it back"


def test_a_bundle_that_fails_its_self_test_never_goes_live(running, base, broken):
    told = to(running, broken)

    assert (told.outcome, told.after, works(running)) == ("rolled back", base.version, base.version)
    assert told.reason.startswith("its self-test failed: tiny/onnx-fp32 answers differently here: ")
    assert (versions(running), left(running)) == ([base.version], [])


def test_a_first_bundle_that_fails_leaves_nothing_in_use_and_is_kept_where_that_is_asked(up, broken):
    told = to(up, broken, keep=True)

    assert (told.outcome, told.before, told.after) == ("failed", None, None)
    assert told.kept.endswith(f"broken/{broken.version}")
    assert (up.home / ROOT / "broken" / broken.version / "run.sh").is_file()
    assert not (up.home / ROOT / "current").exists()
    assert roll_back(at(up), Manner()).reason == "pi@device has no bundle installed"


def test_a_file_that_was_spoilt_on_the_device_is_repaired_by_the_same_command(running, base):
    weights = running.home / ROOT / "current/variant/model.onnx"
    os.truncate(weights, 10)

    told = to(running, base)
    assert told.outcome == "deployed"
    assert told.sent_bytes == base.pieces["variant/model.onnx"].size_bytes
    assert in_use(running) == base.version


def test_a_connection_that_breaks_while_sending_goes_on_with_the_rest(up, base, monkeypatch):
    monkeypatch.setattr(work, "PAUSES_S", ())
    up.link.cut_after = 450_000
    first = to(up, base)
    assert (first.outcome, first.reason) == ("failed", "the connection to pi@device was lost")
    while up.running():  # what came before the end is written down first
        pass

    second = to(up, base)
    assert second.outcome == "deployed"
    assert second.sent_bytes < sum(piece.size_bytes for piece in base.pieces.values()) - 50_000
    assert in_use(up) == base.version


def test_a_connection_that_breaks_while_it_is_tested_hears_the_end_afterwards(running, base, broken, fixed):
    gate = Gate(running)

    def cut():
        gate.came()
        running.link.cut()
        gate.open()

    with meanwhile(cut):
        told = to(running, broken)
    assert (told.outcome, told.before, told.after) == ("rolled back", base.version, base.version)
    assert "answers differently here" in told.reason


def test_an_interrupt_ends_it_there_and_what_was_in_use_stays(running, base, fixed):
    gate = Gate(running)

    def interrupt():
        gate.came()
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(interrupt), pytest.raises(KeyboardInterrupt):
        to(running, fixed)
    (running.home / "gate").unlink()
    assert in_use(running) == base.version
    assert not (running.home / ROOT / "new").exists()
    assert to(running, fixed).outcome == "deployed"


def test_two_deployments_to_one_device_do_not_meet(running, base, fixed, broken):
    gate = Gate(running)

    def second():
        gate.came()
        told = to(running, broken)
        assert told.outcome == "failed"
        assert told.reason.endswith("is deploying to pi@device now")
        gate.open()

    with meanwhile(second):
        assert to(running, fixed).outcome == "deployed"


def test_a_device_with_another_key_gets_nothing(running, base, fixed):
    running.change_host_key()
    told = to(running, fixed)

    assert told.reason == "pi@device has another key than the last time"
    assert "ssh-keygen -R" in told.hint


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"machine": "riscv64"}, "is riscv64"),
        ({"userland_bits": 32}, "with 32-bit programs"),
        ({"pythons": ("3.9",)}, "has no Python that this runs on, but 3.9"),
        ({"libc": "glibc 2.17"}, r"needs glibc 2\.28, and pi has 2\.17"),
        ({"libc": "musl"}, "needs glibc, and pi has musl"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_before_anything_is_sent(made, facts, reason):
    wheel = File(path="wheels/a-1-cp311-cp311-manylinux_2_28_x86_64.whl", size_bytes=1, sha256="0" * 64)
    bundle = replace(read_bundle(made / "fixed"), files=(wheel,), python=("3.11",), machine="x86_64")
    fits = {"machine": "x86_64", "userland_bits": 64, "pythons": ("3.11",), "libc": "glibc 2.36"}
    assert fitting(bundle, Probe(system="Linux", home="~", **fits), "pi") == "3.11"
    with pytest.raises(EdgemlError, match=reason) as caught:
        fitting(bundle, Probe(system="Linux", home="~", **fits | facts), "pi")
    assert caught.value.hint


def test_a_bundle_that_is_not_what_was_packed_goes_nowhere(made, tmp_path):
    store = Store(tmp_path)
    spoilt = tmp_path / "spoilt"
    shutil.copytree(made / "fixed", spoilt)
    (spoilt / "variant/model.onnx").write_bytes(b"other")
    with pytest.raises(EdgemlError, match=r"variant/model\.onnx is not the file"), opened(str(spoilt), store=store):
        pass
    with pytest.raises(EdgemlError, match="no bundle 'nothing'"), opened("nothing", store=store):
        pass


def test_the_power_may_go_before_any_change_to_the_disk(memory_path):
    assert cuts(memory_path, "update") > 30


@pytest.mark.real
@pytest.mark.parametrize("case", ["first", "rollback", "service", "unready"])
def test_the_power_may_go_before_any_change_to_the_disk_of_other_ways(tmp_path, case):
    (tmp_path / "programs").mkdir()
    for name in ("systemctl", "loginctl"):
        (tmp_path / "programs" / name).write_text("#!/bin/sh\n")
        (tmp_path / "programs" / name).chmod(0o755)
    with endpoint(tmp_path / "www") as port:
        assert cuts(tmp_path, case, port) > 10


def cuts(folder, case, port=0):
    """How many cuts were made, each of which left a device that works and the same command that completes."""
    program = [sys.executable, str(Path(__file__).parent / "deployment_cuts.py"), str(folder), case, str(port)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_an_inventory_begins_with_its_canary_and_takes_devices_by_label(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text(
        "schema: edgeml.inventory/1\ndevices:\n  - pi@10.0.0.1\n"
        "  - {device: pi@10.0.0.2, labels: [shop]}\n  - {device: pi@10.0.0.3, labels: [shop, new], canary: true}\n"
    )
    assert [one.host for one in read_inventory(path)] == ["pi@10.0.0.3", "pi@10.0.0.1", "pi@10.0.0.2"]
    assert [one.host for one in read_inventory(path, ["shop"])] == ["pi@10.0.0.3", "pi@10.0.0.2"]
    with pytest.raises(EdgemlError, match=r"no device in .* has cellar") as caught:
        read_inventory(path, ["cellar"])
    assert caught.value.hint == "labels there: new, shop"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("devices: [pi@a]", "has schema None", "begin it with: schema: edgeml.inventory/1"),
        ("nonsense", "has schema None", "begin it with: schema: edgeml.inventory/1"),
        ("schema: edgeml.inventory/2\ndevices: [pi@a]", "has schema 'edgeml.inventory/2'", "another version"),
        ("schema: edgeml.inventory/1\ndevices: []", "length >= 1", "docs/"),
        ("schema: edgeml.inventory/1\ndevices: [pi@a, pi@a]", "has pi@a twice", "keep one"),
        ("schema: edgeml.inventory/1\ndevices: [{device: pi@a, label: x}]", "unknown field `label`", "'labels'"),
        ("schema: edgeml.inventory/1\ndevices: [{device: pi@a, canry: true}]", "unknown field `canry`", "'canary'"),
        (
            "schema: edgeml.inventory/1\ndevices: [{device: a, canary: true}, {device: b, canary: true}]",
            "more than one canary",
            "tried first",
        ),
    ],
)
def test_an_inventory_with_a_mistake_is_refused(tmp_path, text, message, hint):
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(EdgemlError, match=message) as caught:
        read_inventory(path)
    assert hint in caught.value.hint


def test_what_cannot_be_meant_is_refused_as_usage(made):
    for words in (["tiny"], ["tiny", "--host", "a", "--inventory", "b"], ["--host", "a"]):
        assert inside("deploy", *words, "--artifacts", made / "artifacts").code == 2
    assert inside("verify").code == 2


def test_a_dry_run_is_no_failure_and_an_untried_device_is():
    one = Deployment(device="a", host="pi@a", bundle="b", outcome="not tried", reason="not touched")
    require_deployed([one], dry_run=True)
    with pytest.raises(EdgemlError, match="not touched"):
        require_deployed([one])


@pytest.mark.real
def test_versions_beyond_the_last_good_one_are_gone(running, base, fixed, made, tmp_path):
    assert to(running, fixed).outcome == "deployed"
    third = changed(made / "fixed", tmp_path / "third", runtime_fixed)
    with opened(str(third), store=Store(tmp_path)) as parcel:
        assert to(running, parcel).outcome == "deployed"
        assert versions(running) == sorted((fixed.version, parcel.version))
        assert in_use(running) == parcel.version


@pytest.mark.real
def test_a_disk_that_is_full_leaves_what_was_in_use(tmp_path, monkeypatch, base, fixed):
    monkeypatch.setattr(sending, "_SPARE_BYTES", 0)
    with laptop(tmp_path, monkeypatch, disk_bytes=4_000_000) as device:
        assert to(device, base).outcome == "deployed"
        with contextlib.suppress(OSError), (device.home / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        told = to(device, fixed)
        assert told.outcome == "failed"
        assert "pi@device" in told.reason
        (device.home / "filler").unlink()
        assert in_use(device) == base.version
        assert to(device, fixed).outcome == "deployed"


@pytest.fixture
def fleet(tmp_path, monkeypatch, base):
    """Three devices that have the first version, and the words by which a plain `ssh` reaches each."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(laptop(tmp_path / name, monkeypatch)) for name in ("a", "b", "c")]
        client = tmp_path / "client"
        client.mkdir()
        config = "".join(
            (one.folder / "config").read_text().partition("Host *")[0].replace("Host device", f"Host {name}")
            + f"  IdentityFile {one.folder}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {one.folder}/known_hosts\n"
            for name, one in zip("abc", found, strict=True)
        )
        (client / "config").write_text(config + "Host *\n  GlobalKnownHostsFile none\n")
        real = shutil.which("ssh", path="/usr/local/bin:/usr/bin:/bin")
        (client / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {client}/config "$@"\n')
        (client / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{client}:{os.environ['PATH']}")
        yield {f"pi@{name}": one for name, one in zip("abc", found, strict=True)}


def hosts(fleet):
    return [Device(name=name.removeprefix("pi@"), host=name) for name in fleet]


@pytest.mark.real
def test_where_the_canary_fails_no_other_device_is_touched(fleet, base, broken):
    first = deploy_all(base, hosts(fleet), Manner(), Pace(parallel=2))
    assert [one.outcome for one in first] == ["deployed"] * 3

    second = deploy_all(broken, hosts(fleet), Manner(), Pace())
    assert [one.outcome for one in second] == ["rolled back", "not tried", "not tried"]
    assert second[1].reason == "not touched, since the canary failed"
    assert [in_use(one) for one in fleet.values()] == [base.version] * 3
    assert {one.current for one in versions_on(hosts(fleet))} == {base.version}
    with pytest.raises(EdgemlError, match=r"^3 of 3 devices have no new version; the first, a: its self-test failed"):
        require_deployed(second)


@pytest.mark.real
def test_the_commands_for_many_devices_say_what_became_of_each_and_lead_on_to_the_same_ones(fleet, made, tmp_path):
    listed = "\n".join(["  - {device: pi@b, canary: true}", "  - {device: pi@a, labels: [shop]}", "  - pi@c"])
    path = tmp_path / "fleet.yaml"
    path.write_text(f"schema: edgeml.inventory/1\ndevices:\n{listed}\n")
    where = ("--inventory", path, "--artifacts", made / "artifacts")
    dry = inside("deploy", made / "fixed", "--dry-run", "--label", "shop", *where)
    assert dry.steps == [f"edgeml deploy {made}/fixed --label shop --inventory {path} --artifacts {made}/artifacts"]
    assert inside("deploy", "tiny", *where).code == 0
    assert inside("deploy", made / "fixed", *where).code == 0

    fleet["pi@b"].link.is_down = True
    stopped = inside("deploy", made / "broken", *where)
    cells = [line.split() for line in stopped.out.splitlines() if line.startswith("pi@") and ": " not in line]
    assert stopped.code == 3
    assert [row[2:-1] for row in cells] == [["failed"], ["not"], ["not"]]  # nobody knows what is in use there
    assert [row[-1] for row in cells[1:]] == ["tried", "tried"]

    fleet["pi@b"].link.is_down = False
    back = inside("deploy", "--rollback", *where)
    assert (back.code, back.out.count("deployed")) == (0, 3)
    assert back.steps == [f"edgeml verify --inventory {path} --artifacts {made}/artifacts"]


@pytest.mark.real
def test_an_installation_in_a_folder_of_its_own_is_asked_for_and_taken_back_there(running, made):
    where = ("--host", running.host, "--path", "own", "--artifacts", made / "artifacts")
    for bundle in ("tiny", made / "fixed"):
        told = inside("deploy", bundle, *where)
        assert told.steps == [f"edgeml deploy --status --host {running.host} --path own --artifacts {made}/artifacts"]
    seen = inside("deploy", "--status", *where)
    assert seen.steps == [f"edgeml deploy own --rollback --host {running.host} --path own --artifacts {made}/artifacts"]
    assert inside("deploy", "own", "--rollback", *where).code == 0


@pytest.mark.real
def test_an_interrupt_ends_it_on_every_device_that_was_under_way(fleet, base, fixed):
    deploy_all(base, hosts(fleet), Manner(), Pace())
    gates = [Gate(fleet[name]) for name in ("pi@b", "pi@c")]

    def interrupt():
        for gate in gates:
            gate.came()
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(interrupt), pytest.raises(KeyboardInterrupt):
        deploy_all(fixed, hosts(fleet), Manner(), Pace())
    assert [in_use(one) for one in fleet.values()] == [fixed.version, base.version, base.version]
    for name in ("pi@b", "pi@c"):
        assert left(fleet[name])[:1] != ["new"]
        (fleet[name].home / "gate").unlink()
    assert [one.outcome for one in deploy_all(fixed, hosts(fleet), Manner(), Pace())] == [
        "unchanged",
        *["deployed"] * 2,
    ]


@pytest.mark.real
def test_as_many_devices_may_fail_as_is_allowed(fleet, base):
    fleet["pi@b"].link.is_down = True
    made = deploy_all(base, hosts(fleet), Manner(), Pace(parallel=1, max_failures=1))
    assert [one.outcome for one in made] == ["deployed", "failed", "deployed"]

    fleet["pi@a"].link.is_down = True
    made = deploy_all(base, hosts(fleet), Manner(), Pace(parallel=1, max_failures=1))
    assert [one.outcome for one in made] == ["failed", "failed", "not tried"]
    assert made[2].reason == "not touched, since too many had failed"


@pytest.mark.real
def test_the_commands_tell_a_line_a_device_and_end_with_3_where_one_failed(up, made, base, broken, tmp_path):
    options = ("--artifacts", made / "artifacts", "--host", up.host)
    dry = inside("deploy", "tiny", *options, "--dry-run", "--json")
    assert dry.code == 0, dry.err
    told = json.loads(dry.out)
    assert (told["outcome"], told["sent_bytes"]) == ("not tried", 0)
    assert told["reason"].startswith("would send 0.")
    assert not (up.home / ROOT).exists()

    done = inside("deploy", "tiny", *options, "--json")
    assert (done.code, json.loads(done.out)["outcome"]) == (0, "deployed")
    assert done.steps == [f"edgeml deploy --status --host {up.host} --artifacts {made / 'artifacts'}"]
    failed = inside("deploy", made / "broken", *options)
    assert failed.code == 3
    assert "rolled back" in failed.out
    assert "error: pi@device was rolled back: its self-test failed" in failed.err

    (tmp_path / "fleet.yaml").write_text(f"schema: edgeml.inventory/1\ndevices: ['{up.host}']\n")
    seen = inside("verify", "--inventory", tmp_path / "fleet.yaml", "--json")
    found = json.loads(seen.out)
    assert (found["current"], found["model"]) == (base.version, base.bundle.parts["model"])
    assert base.version[:12] in inside("deploy", "--status", *options).out
    assert inside("deploy", "--rollback", *options).code == 3


SYSTEMCTL = r"""# What systemd does for a user's unit, as far as it is asked here.
[ "$1" = --user ] && shift
verb=$1; [ "$2" = --quiet ] && shift; unit=$2; pid=$HOME/$unit.pid
alive() { [ -f "$pid" ] && grep -q '^State:.[^Z]' "/proc/$(cat "$pid")/status" 2>/dev/null; }
stop() { alive && kill "$(cat "$pid")"; while alive; do sleep 0.02; done; rm -f "$pid"; }
case $verb in
    stop) stop ;;
    start|restart)
        stop
        command=$(sed -n 's/^ExecStart=//p' "$HOME/.config/systemd/user/$unit")
        [ -n "$command" ] || { echo "Unit $unit not found." >&2; exit 5; }
        setsid sh -c "exec $command" < /dev/null > "$HOME/served.txt" 2>&1 &
        echo $! > "$pid" ;;
    is-active) alive ;;
esac
"""


@contextlib.contextmanager
def endpoint(folder):
    """A port of this machine where /ready answers."""
    folder.mkdir(parents=True)
    (folder / "ready").write_text("ready\n")
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def health(port):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/health") as answer:
        return answer.status


def deaf(folder):
    """As a version that passes its self-test and cannot serve."""
    path = folder / "run.sh"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("set -eu\n", 'set -eu\n[ "${1:-}" != serve ] || exit 1\n'), encoding="utf-8")


@pytest.mark.real
def test_an_endpoint_is_restarted_with_each_version_and_a_version_that_cannot_serve_is_taken_back(
    running, base, fixed, made, tmp_path, monkeypatch
):
    monkeypatch.setattr("edgeml.deploy._LIMITS", {"test_s": 60.0, "ready_s": 20.0})
    running.program("systemctl", SYSTEMCTL)
    running.program("loginctl", "echo no")
    port = free_port()
    first = to(running, base, service=True, settings=f"port = {port}\n")
    assert (first.outcome, health(port)) == ("deployed", 200)
    assert first.warnings == (
        "pi@device ends the endpoint when its user logs out: ssh pi@device loginctl enable-linger",
    )
    (unit,) = (running.home / ".config/systemd/user").glob("*.service")
    pid = (running.home / f"{unit.name}.pid").read_text()
    assert to(running, base, service=True).outcome == "unchanged"

    assert to(running, fixed).outcome == "deployed"
    assert (running.home / f"{unit.name}.pid").read_text() != pid
    monkeypatch.setattr("edgeml.deploy._LIMITS", {"test_s": 60.0, "ready_s": 1.0})
    with opened(str(changed(made / "fixed", tmp_path / "deaf", deaf)), store=Store(tmp_path)) as parcel:
        told = to(running, parcel)
    assert (told.outcome, told.after, works(running)) == ("rolled back", fixed.version, fixed.version)
    assert (
        told.reason == f"its endpoint was not ready at http://127.0.0.1:{port}/ready within 1 s: it took no connection"
    )
    assert told.hint == "see why: ssh pi@device \"journalctl --user --lines 20 --unit 'edgeml-*'\""
    assert left(running) == []
    (one,) = versions_on([at(running)])
    assert (one.serves, one.current, one.previous) == (True, fixed.version, base.version)


@pytest.mark.real
def test_a_device_without_services_is_told_from_a_bundle_that_fails_before_anything_is_sent(running, base, fixed):
    running.program("systemctl", "echo 'Failed to connect to bus: No medium found' >&2\nexit 1")
    told = to(running, fixed, service=True)
    assert (told.outcome, told.sent_bytes, works(running)) == ("failed", None, base.version)
    assert told.reason == "pi@device runs no service of its user: Failed to connect to bus: No medium found"
    assert told.hint == (
        "leave out --service, and let it be started there in another way: "
        "sh .local/share/edgeml/tiny-onnx-fp32/current/run.sh serve"
    )
    assert to(running, fixed, service=True, dry_run=True).reason == told.reason


@pytest.mark.real
def test_settings_without_a_service_lie_beside_the_version_for_who_starts_it(running, base):
    assert to(running, base, settings="port = 8123\n").outcome == "deployed"
    assert (running.home / ROOT / "serve.toml").read_text() == "port = 8123\n"
    assert to(running, base, settings="port = 8123\n").outcome == "unchanged"


STEPS = [
    ("os.mkdir", "new/"),
    ("os.link", "bundle.json"),
    ("subprocess.Popen", "run.sh"),
    ("os.rename", "versions/"),
    ("os.rename", "previous"),
    ("os.rename", "current"),
    ("os.rename", ".gone"),
    ("open", "last.json"),
]
HALT = """import sys
event, word, came, go = sys.argv[1:5]
loader, command = sys.argv[-2:]
sys.argv[:] = ["-c", command]
def halt(found, arguments):
    if found == event and any(word in str(one) for one in arguments):
        open(came, "w").close()
        open(go).read()
sys.addaudithook(halt)
exec(loader)
"""


@pytest.mark.real
@pytest.mark.parametrize("step", STEPS, ids=" ".join)
def test_a_device_that_restarts_at_any_step_works_and_the_same_command_completes(
    running, fixed, made, tmp_path, monkeypatch, step
):
    event, word = step
    monkeypatch.setattr(work, "PAUSES_S", ())
    if word == ".gone":  # something must be too old
        assert to(running, fixed).outcome == "deployed"
    before = in_use(running)
    halt, came, go = (tmp_path / name for name in ("halt", "came", "go"))
    halt.write_text(HALT)
    os.mkfifo(came)
    os.mkfifo(go)
    stopped = f'exec {sys.executable} -I -S {halt} {event} {word} {came} {go} "$@"'
    (running.home / "gate").write_text(f'case "$*" in *" install") {stopped};; esac\n')
    (running.home / "gate").chmod(0o755)
    third = changed(made / "fixed", tmp_path / "third", runtime_fixed)
    with opened(str(third), store=Store(tmp_path)) as parcel:

        def restart():
            came.read_text()
            running.reboot()

        with meanwhile(restart):
            told = to(running, parcel)
        (running.home / "gate").unlink()
        assert (told.outcome, told.reason) == ("failed", "the connection to pi@device was lost")
        assert works(running) in (before, parcel.version)

        assert to(running, parcel).outcome in ("deployed", "unchanged")
        assert works(running) == parcel.version
        assert len(versions(running)) == 2


@pytest.mark.real
def test_a_virtual_pi_is_deployed_to_and_a_broken_bundle_is_rolled_back(emulator_cache, tmp_path, monkeypatch):
    pi5 = emulator(profile("pi5"), "onnx")
    store = Store(tmp_path / "artifacts")
    runtime_wheels(profile("pi5"), "onnx")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    packed = package(variant, store=store, profile=profile("pi5"), kind="tar")
    folder = kind_of("tar").unpack(bundle_path(store, packed), tmp_path / "unpacked")
    fix, bad = (
        changed(folder, tmp_path / name, change) for name, change in (("fix", runtime_fixed), ("bad", goldens_broken))
    )
    with ssh_server.virtual_pi(tmp_path, pi5.qemu, pi5.root, cpu=pi5.cpu) as pi:
        monkeypatch.setenv("PATH", f"{pi.client}:{os.environ['PATH']}")
        with opened(packed.name, store=store) as parcel:
            first = to(pi, parcel)
            assert (first.outcome, first.reason) == ("deployed", None)
        with opened(str(fix), store=store) as parcel:
            second = to(pi, parcel)
            assert second.outcome == "deployed"
            assert second.sent_bytes < 100_000
            assert first.sent_bytes > 10_000_000
            (new,) = (pi.home / ROOT / "current").glob(".site-*")
            (old,) = (pi.home / ROOT / "previous").glob(".site-*")
            assert (new / "numpy/__init__.py").samefile(old / "numpy/__init__.py")
        with opened(str(bad), store=store) as parcel:
            third = to(pi, parcel)
            assert (third.outcome, third.after) == ("rolled back", second.after)
            assert "answers differently here" in third.reason
        assert works(pi) == second.after
    laptops = kind_of("dir").read(tiny_bundle(tmp_path / "here"))
    with pytest.raises(EdgemlError, match=f"is for {laptops.machine}, and pi is aarch64"):
        fitting(laptops, Probe(machine="aarch64", userland_bits=64, system="Linux", pythons=("3.11",), home="~"), "pi")


def test_a_bundle_that_another_key_signed_goes_nowhere(made, tmp_path):
    pytest.importorskip("model_signing")
    keys = []
    for name in ("ours", "theirs"):
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        make = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", private]
        subprocess.run(make, check=True, capture_output=True)
        subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
        keys.append((private, public))
    folder = tmp_path / "signed"
    shutil.copytree(made / "fixed", folder)
    with pytest.raises(EdgemlError, match="no signature"), opened(str(folder), store=Store(tmp_path), key=keys[0][1]):
        pass
    sign(folder, keys[0][0])
    with opened(str(folder), store=Store(tmp_path), key=keys[0][1]) as parcel:
        assert "model.sig" in parcel.pieces
    with pytest.raises(EdgemlError, match="another key"), opened(str(folder), store=Store(tmp_path), key=keys[1][1]):
        pass


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_unit_is_one_that_systemd_takes_wherever_the_bundle_lies(tmp_path):
    root = tmp_path / 'my "model" 100%'
    (root / "current").mkdir(parents=True)
    for name in ("current/run.sh", SETTINGS):
        (root / name).touch()
    unit = tmp_path / unit_of(root).name
    unit.write_text(unit_text(root))

    verified = ["systemd-analyze", "verify", "--user", unit]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(verified, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert unit.name == "edgeml-my__model__100_.service"
    assert "LimitCORE=0" in unit.read_text(), "a core file would hold what was asked"
