"""Packing: what a bundle holds, that it is the same each time, and that nothing is left of one that failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import msgspec
import pytest

from edgeml.bundles import dir, tar
from edgeml.download import runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.papers.origin import public_ref
from edgeml.store import Store, load_variant
from edgeml.targets import profile
from edgeml.types import Model, Run
from edgeml.wheels import requirements, wheel_folder
from edgeml_runtime.bundle import Bundle, Goldens, check_files, checksums
from edgeml_runtime.records import describe, describe_file, read_record, write_record
from edgeml_runtime.types import Environment, Generate, Outcome, Samples, VariantManifest
from tiny.refusals import refusal
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

NAME = "tiny-onnx-fp32-laptop"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


@pytest.fixture
def variant(store):
    return onnx_variant(store.variant_folder("tiny", "onnx-fp32"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A store with one variant, packed both ways; for looking at only."""
    store = Store(tmp_path_factory.mktemp("ready") / "artifacts")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    for kind in ("dir", "tar"):
        packed(variant, store, kind=kind)
    return store.root


@pytest.fixture
def folder(ready):
    return ready / "bundles" / NAME


def packed(variant, store, **options):
    """The path of a bundle without wheels, for a machine like this one."""
    bundle = package(variant, store=store, profile=here(), **{"kind": "dir", "wheels": False} | options)
    return bundle_path(store, bundle)


def here():
    return msgspec.structs.replace(profile("laptop"), machine=os.uname().machine)


def left(store):
    return sorted(path.name for path in (store.root / "bundles").glob("*"))


def test_a_bundle_holds_all_that_the_design_names(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "DATA_CARD.md",
        "MODEL_CARD.md",
        "SHA256SUMS",
        "bom.cdx.json",
        "bundle.json",
        "edgeml_runtime",
        "goldens.json",
        "licences",
        "provenance.json",
        "requirements.txt",
        "run.sh",
        "variant",
    ]
    assert {path.suffix for path in (folder / "edgeml_runtime").rglob("*") if path.is_file()} == {".py", ".typed"}
    assert read_record(folder / "bundle.json", Bundle).name == folder.name


def test_the_checksums_cover_every_other_file_and_sha256sum_reads_them(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    names = [line.partition("  ")[2] for line in lines]
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == [name for name in present if name != "SHA256SUMS"]
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def test_weights_for_other_integer_kernels_are_packed_with_a_word_of_what_that_costs_and_what_to_do(variant, store):
    path = variant.path / "variant.json"
    write_record(path, msgspec.structs.replace(variant.manifest, built_for="arm64"))
    told: list[str] = []
    card = packed(load_variant(variant.path), store, tell=told.append) / "MODEL_CARD.md"

    assert [text for text in told if "arm64" in text] == [
        "tiny/onnx-fp32 was made for arm64, and laptop is x86-64-avx2, where sums of its 8-bit weights may overflow "
        "and change answers: edgeml quantize tiny --to onnx:fp32 --target laptop --force replaces it by one that fits"
    ]
    assert "Made for arm64, not for this target's x86-64-avx2, where sums of its 8-bit" in card.read_text()


def test_nothing_is_said_of_weights_that_would_be_made_alike(variant, store):
    told: list[str] = []
    write_record(variant.path / "variant.json", msgspec.structs.replace(variant.manifest, built_for="x86-64-avx2"))
    packed(load_variant(variant.path), store, tell=told.append)

    assert not any("made for" in text for text in told)


def test_requirements_are_exact_and_few(folder):
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in lines] == [
        "anyio",
        "click",
        "h11",
        "msgspec",
        "numpy",
        "onnxruntime",
        "starlette",
        "tokenizers",
        "typing-extensions",
        "uvicorn",
    ]
    assert f"msgspec=={msgspec.__version__}" in lines


def test_goldens_are_synthetic_unless_a_file_is_named(folder, variant, store, tmp_path):
    texts = tmp_path / "mine.txt"
    texts.write_text("my first line\nmy second line\n")
    own = read_record(packed(variant, store, goldens=texts) / "goldens.json", Goldens)
    assert own.texts == ("my first line", "my second line")
    assert not own.synthetic
    assert read_record(folder / "goldens.json", Goldens).synthetic


def test_the_same_variant_packs_to_the_same_bytes(ready, variant, store):
    assert packed(variant, store, kind="tar").read_bytes() == (ready / "bundles" / f"{NAME}.tar.gz").read_bytes()


def test_an_archive_holds_the_folder_and_tells_nothing_of_its_maker(ready, tmp_path):
    path = ready / "bundles" / f"{NAME}.tar.gz"
    assert path.read_bytes()[4:8] == b"\0\0\0\0"  # gzip's time
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path, filter="data")
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert {member.mode for member in members if not member.name.endswith("run.sh")} == {0o644}
    check_files(tmp_path / NAME)


def test_an_archives_times_follow_from_the_contents_alone(tmp_path):
    def times(content, stamp):
        folder = tmp_path / stamp / "bundle"
        folder.mkdir(parents=True)
        (folder / "model").write_text(content)
        os.utime(folder / "model", (int(stamp), int(stamp)))
        with tarfile.open(tar.seal(folder)) as archive:
            return [(member.name, member.size, member.mtime) for member in archive]

    assert times("old", "1") == times("old", "2")
    assert times("old", "3") != times("new", "3000000000")


def test_a_bundle_that_exists_stays_unless_it_differs_and_force_is_given(ready, tmp_path):
    store = Store(shutil.copytree(ready, tmp_path / "artifacts"))
    folder = store.root / "bundles" / NAME
    same, other = store.variant("tiny"), onnx_variant(tmp_path / "other", seed=1)
    before = folder.stat().st_ino
    assert packed(same, store) == folder
    assert "exists and differs" in refusal(packed, other, store)
    assert folder.stat().st_ino == before
    packed(other, store, force=True)
    assert folder.stat().st_ino != before
    check_files(folder)
    assert left(store) == [NAME, f"{NAME}.tar.gz"]


def test_a_bundle_damaged_since_is_not_taken_for_the_same(folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / NAME)
    assert dir.same(folder, damaged)
    (damaged / "run.sh").write_text("exit 0\n")
    assert not dir.same(folder, damaged)


def test_no_path_of_the_makers_machine_is_in_a_bundle(tmp_path):
    home = tmp_path / "home" / "alice"
    store = Store(home / "artifacts")
    folder = store.variant_folder("acme", "onnx-fp32")
    variant = onnx_variant(folder, name="acme/onnx-fp32", model=str(home / "acme-model"))
    path = packed(variant, store)
    assert not [file for file in path.rglob("*") if file.is_file() and b"alice" in file.read_bytes()]
    manifest = read_record(path / "variant" / "variant.json", VariantManifest)
    assert manifest.model == "local:acme-model"
    assert manifest.source_files == variant.manifest.source_files
    assert read_record(path / "bundle.json", Bundle).model == "local:acme-model"


def test_references_to_the_hub_and_the_index_stay_as_they_are():
    assert public_ref("hf:org/name@0123") == "hf:org/name@0123"
    assert public_ref("pypi:package==1.0") == "pypi:package==1.0"
    assert public_ref("/home/alice/model.gguf") == "local:model.gguf"


def test_the_models_licence_texts_travel(variant, store, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "LICENSE.md").write_text("Be kind.\n")
    (source / "licensed_words.txt").write_text("no licence\n")
    (source / "licenses").mkdir()
    (source / "licenses" / "LICENSE.md").write_text("Be kinder.\n")
    model = Model(
        name="tiny",
        ref="pypi:tiny-model==1.0",
        path=str(source),
        files=describe(source),
        format="safetensors",
        downloaded="2026-01-01T00:00:00Z",
    )
    store.add_model(model)
    path = packed(variant, store)
    assert (path / "licences" / "LICENSE.md").read_text() == "Be kind.\n"
    assert (path / "licences" / "licenses" / "LICENSE.md").read_text() == "Be kinder.\n"


def test_a_variant_that_is_not_what_its_manifest_says_is_refused(variant, store, tmp_path):
    working = onnx_variant(tmp_path / "other", seed=1).path / "model.onnx"
    shutil.copyfile(working, variant.path / "model.onnx")
    assert "model.onnx is not the file that was recorded" in refusal(packed, variant, store)
    assert left(store) == []


def test_a_variant_whose_answer_does_not_depend_on_its_input_is_refused(store):
    constant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"), constant=True)
    assert "broken" in refusal(packed, constant, store)
    assert left(store) == []


def test_a_variant_that_does_not_load_is_refused(variant, store):
    (variant.path / "model.onnx").write_bytes(b"no graph")
    files = tuple(file for file in describe(variant.path) if file.path != "variant.json")
    write_record(variant.path / "variant.json", msgspec.structs.replace(variant.manifest, files=files))
    assert "model.onnx" in refusal(packed, load_variant(variant.path), store)
    assert left(store) == []


def test_bad_goldens_are_refused(variant, store, tmp_path):
    (tmp_path / "a.csv").write_text("body\nhello\nworld\n")
    assert "'text'" in refusal(packed, variant, store, goldens=tmp_path / "a.csv")
    assert left(store) == []


def test_an_unknown_kind_is_refused(variant, store):
    assert "'zip'" in refusal(packed, variant, store, kind="zip")


@pytest.mark.parametrize("step", ["copy", "goldens", f"write {NAME}"])
def test_an_interruption_leaves_nothing(variant, store, step):
    def interrupt(name, done, total):
        if name == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(variant, store, progress=interrupt)
    assert left(store) == []


def test_a_place_that_cannot_be_written_is_a_sentence(variant, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(packed, variant, Store(tmp_path / "file"))


def wheels(target, python, content="x.py"):
    """Empty wheels in the cache, of the names that a bundle of ONNX needs."""
    folder = wheel_folder(profile(target), python, "onnx")
    folder.mkdir(parents=True)
    for pin in requirements("onnx"):
        name, _, version = pin.partition("==")
        write_wheel(folder, {content: b""}, name=name, version=version)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))


def test_a_bundle_for_another_machine_carries_its_wheels_and_the_same_goldens(variant, store, folder, cache):
    wheels("pi5", "3.13")
    bundle = package(variant, store=store, profile=profile("pi5"), kind="dir")
    path = bundle_path(store, bundle)
    assert (bundle.machine, bundle.python) == ("aarch64", ("3.13",))
    assert len(list((path / "wheels").iterdir())) == len(requirements("onnx"))
    assert (path / "goldens.json").read_bytes() == (folder / "goldens.json").read_bytes()


def test_wheels_that_were_not_downloaded_are_refused_with_the_command(variant, store, cache):
    with pytest.raises(EdgemlError) as caught:
        package(variant, store=store, profile=profile("pi5"), kind="dir")
    assert "edgeml download" in caught.value.hint
    assert left(store) == []


def test_a_wheel_that_unpacking_does_not_install_is_refused(variant, store, cache):
    wheels("pi5", "3.11", content="numpy-1.0.data/purelib/numpy.py")
    assert "needs an installer" in refusal(package, variant, store=store, profile=profile("pi5"), kind="dir")
    assert left(store) == []


def test_the_card_shows_runs_of_these_very_weights(variant, store):
    weights = next(file.sha256 for file in variant.manifest.files if file.path == "model.onnx")
    for started, sha256, value in (("1", weights, 1.0), ("2", weights, 3.25), ("3", "other", 2.0)):
        store.add_run(a_run(started=f"2026-01-0{started}T00:00:00", variant_sha256=sha256, latency_ms=value))
    card = (packed(variant, store) / "MODEL_CARD.md").read_text()
    lines = [line for line in card.splitlines() if line.startswith("| latency ")]
    assert len(lines) == 1
    assert "| 3.25 |" in lines[0]


def test_the_card_tells_nothing_of_the_groups_that_the_data_was_sliced_by(variant, store):
    weights = next(file.sha256 for file in variant.manifest.files if file.path == "model.onnx")
    run = a_run(started="2026-01-01T00:00:00", variant_sha256=weights, latency_ms=1.0)
    tokens = msgspec.structs.replace(
        run.outcome.samples[0], metric="tokens", unit_of_sample="row", statistics=("mean",)
    )
    outcome = msgspec.structs.replace(run.outcome, samples=(tokens,))
    store.add_run(msgspec.structs.replace(run, outcome=outcome, slices={"customer": ("Tankoria",) * 9}))

    card = (packed(variant, store) / "MODEL_CARD.md").read_text()

    assert len([line for line in card.splitlines() if line.startswith("| tokens ")]) == 1
    assert "Tankoria" not in card


def a_run(*, started, variant_sha256, latency_ms):
    latency = Samples(
        metric="latency",
        unit="ms",
        values=(latency_ms,) * 9,
        statistics=("median",),
        unit_of_sample="text",
        method="a clock",
    )
    environment = Environment(machine="x", system="x", python="3", threads=1, cores=1, libraries={})
    return Run(
        variant="tiny/onnx-fp32",
        variant_sha256=variant_sha256,
        target="laptop",
        how="measured",
        task="feature-extraction",
        started=started,
        dataset="data.csv",
        dataset_sha256="0",
        seed=1,
        repeats=9,
        warmups=0,
        batch_size=1,
        context_tokens=512,
        generate=Generate(),
        outcome=Outcome(environment=environment, samples=(latency,)),
    )


def dressed(folder, goal, *, python="3.11", machine=None):
    """A copy of a bundle's runtime whose manifest names another Python or machine, with an empty wheel for it."""
    tag = f"cp{python.replace('.', '')}"
    shutil.copytree(folder, goal)
    (goal / "wheels").mkdir()
    wheel = goal / "wheels" / f"extra-1.0-{tag}-{tag}-linux_{os.uname().machine}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("extra.py", "")
    bundle = read_record(goal / "bundle.json", Bundle)
    changed = msgspec.structs.replace(
        bundle,
        python=(python,),
        machine=machine or bundle.machine,
        files=(*bundle.files, describe_file(wheel, f"wheels/{wheel.name}")),
    )
    write_record(goal / "bundle.json", changed)
    (goal / "SHA256SUMS").write_text(checksums((*changed.files, describe_file(goal / "bundle.json", "bundle.json"))))
    return goal


def run(folder, *arguments, cwd="/", python=sys.executable, **environment):
    """`sh run.sh ...` where the only python3 is `python` and the environment says nothing else."""
    path = folder.parent / "path"
    path.mkdir(exist_ok=True)
    (path / "python3").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (path / "python3").chmod(0o755)
    for tool in ("sh", "dirname", "grep", "sha256sum", "head", "cut"):
        (path / tool).unlink(missing_ok=True)
        (path / tool).symlink_to(shutil.which(tool))
    return subprocess.run(
        ["/bin/sh", str(folder / "run.sh"), *arguments],
        cwd=cwd,
        env={"PATH": str(path), "HOME": str(folder.parent)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_run_sh_works_from_another_folder_and_below_a_path_with_spaces(folder, tmp_path):
    goal = shutil.copytree(folder, tmp_path / "on the device" / "it's here")
    (tmp_path / "rows file.txt").write_text("one\n")
    done = run(goal, "predict", "--input", "rows file.txt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 8


def test_the_help_of_run_sh_is_about_what_was_typed(folder, tmp_path):
    goal = shutil.copytree(folder, tmp_path / "bundle")
    said = " ".join(run(goal, "predict", "--help").stdout.split())
    assert said.startswith(f"usage: {goal}/run.sh predict [-h] [--json] --input FILE")
    assert "FOLDER" not in said
    assert " ".join(run(goal, "-x").stderr.split()).startswith(f"usage: {goal}/run.sh [-h]")


def test_run_sh_unpacks_once_and_a_half_made_folder_is_not_used(folder, tmp_path):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    goal = dressed(folder, tmp_path / "bundle", python=version)
    (goal / f".site-{version}-000000000000.half").mkdir()
    assert run(goal, "info").returncode == 0
    made = [path for path in goal.glob(".site-*") if not path.name.endswith(".half")]
    assert [(path / "extra.py").is_file() for path in made] == [True]
    time = made[0].stat().st_mtime_ns
    assert run(goal, "info").returncode == 0
    assert made[0].stat().st_mtime_ns == time


def test_run_sh_says_in_a_sentence_that_no_python_fits(folder, tmp_path):
    done = run(dressed(folder, tmp_path / "bundle", python="3.99"), "selftest")
    assert done.returncode == 3
    assert "this bundle is for Python 3.99 on" in done.stderr
    assert done.stderr.count("\n") == 2


def test_run_sh_says_in_a_sentence_that_the_machine_is_another(folder, tmp_path):
    done = run(dressed(folder, tmp_path / "bundle", machine="riscv64"), "selftest")
    assert done.returncode == 3
    assert "riscv64" in done.stderr
    assert os.uname().machine in done.stderr


def test_run_sh_says_in_a_sentence_that_python_is_too_old_or_missing(folder, tmp_path):
    goal = shutil.copytree(folder, tmp_path / "bundle")
    done = run(goal, "selftest", python="false")
    assert done.returncode == 3
    assert "needs Python 3.11 or newer" in done.stderr


def test_run_sh_vouches_for_the_runtime_before_it_runs_it(folder, tmp_path):
    goal = shutil.copytree(folder, tmp_path / "bundle")
    (goal / "edgeml_runtime" / "errors.py").write_text("this is no Python\n")
    done = run(goal, "selftest")
    assert done.returncode == 3
    assert "edgeml_runtime/errors.py" in done.stderr


def test_a_wheel_that_was_changed_is_not_unpacked(folder, tmp_path):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    goal = dressed(folder, tmp_path / "bundle", python=version)
    wheel = next((goal / "wheels").iterdir())
    wheel.write_bytes(wheel.read_bytes() + b"x")
    done = run(goal, "info")
    assert done.returncode == 3
    assert wheel.name in done.stderr
    assert not list(goal.glob(".site-*"))


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A bundle with all its wheels, unpacked from its archive at another place, as on a device."""
    home = tmp_path_factory.mktemp("device")
    store, target = Store(home / "artifacts"), profile(None)
    runtime_wheels(target, "onnx")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    bundle = package(variant, store=store, profile=target, kind="tar")
    with tarfile.open(bundle_path(store, bundle)) as archive:
        archive.extractall(home / "my device", filter="data")
    shutil.rmtree(store.root)
    return home / "my device" / bundle.name


def on_device(folder, *arguments, namespace=("unshare", "-rn")):
    """`sh run.sh ...` as on a device: no environment, no network, and a Python without any package."""
    empty = folder.parent / "empty"
    if not empty.exists():
        venv.create(empty, with_pip=False)
    command = [*namespace, "env", "-i", f"PATH={empty}/bin:/usr/bin:/bin", "sh", str(folder / "run.sh"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


@pytest.fixture
def device(carried, tmp_path):
    return shutil.copytree(carried, tmp_path / "a copy of it")


@pytest.mark.real
def test_a_bundle_passes_its_self_test_in_an_empty_environment_without_a_network(device):
    done = on_device(device, "selftest", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["texts"] == 9
    assert "onnxruntime" in str(list(device.glob(".site-*/*")))


@pytest.mark.real
@pytest.mark.parametrize("name", ["variant/model.onnx", "goldens.json", "edgeml_runtime/session.py", "MODEL_CARD.md"])
def test_one_flipped_byte_fails_the_self_test_and_is_named(device, name):
    content = bytearray((device / name).read_bytes())
    content[len(content) // 2] ^= 1
    (device / name).write_bytes(content)
    done = on_device(device, "selftest")
    assert done.returncode == 3
    assert name in done.stderr


@pytest.mark.real
def test_goldens_of_another_model_fail_the_self_test(device):
    goldens = read_record(device / "goldens.json", Goldens)
    vectors = tuple(tuple(-value for value in vector) for vector in goldens.vectors)
    write_record(device / "goldens.json", msgspec.structs.replace(goldens, vectors=vectors))
    bundle = read_record(device / "bundle.json", Bundle)
    files = tuple(describe_file(device / file.path, file.path) for file in bundle.files)
    write_record(device / "bundle.json", msgspec.structs.replace(bundle, files=files))
    (device / "SHA256SUMS").write_text(checksums((*files, describe_file(device / "bundle.json", "bundle.json"))))
    done = on_device(device, "selftest")
    assert done.returncode == 3
    assert "answers differently here" in done.stderr


@pytest.mark.real
def test_a_bundle_on_a_read_only_disk_unpacks_in_the_cache(device, tmp_path):
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    namespace = ("unshare", "-rnm", "sh", "-c", mount, "sh", str(device))
    command = ["env", "-i", "PATH=/usr/bin:/bin", f"XDG_CACHE_HOME={tmp_path}/cache", "sh", str(device / "run.sh")]
    done = subprocess.run([*namespace, *command, "selftest"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(device.glob(".site-*"))
    assert len(list((tmp_path / "cache" / "edgeml").glob(".site-*"))) == 1
