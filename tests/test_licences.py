"""Licences at packaging: texts travel, duties are named, and what is known to be missing or forbidden is refused."""

from __future__ import annotations

import msgspec
import pytest

from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.papers.licences import Asked, check, duties, known, licence_of, spdx_of, standard_text, write
from edgeml.sources.wheel import opened
from edgeml.store import Store
from edgeml.targets import profile
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel


def refusal(asked):
    with pytest.raises(EdgemlError) as caught:
        check(asked)
    return caught.value


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "LICENSE.txt"
    path.write_text("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n")
    return path


def llama(text=None, name="llama-tiny", given=None):
    texts = (("LICENSE.txt", text),) if text else ()
    return Asked(name=name, stated="llama3.2", texts=texts, given=given)


def test_every_row_has_a_source_and_says_how_it_was_checked():
    for row in known():
        assert row.source.startswith("https://"), row.ids
        assert row.dated, row.ids
        assert set(row.ids) == {name.lower() for name in row.ids}
        assert not row.ships or standard_text(row.ships)
        assert not row.needs_text or row.says, row.ids
    ids = [name for row in known() for name in row.ids]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("stated", "spdx"), [("apache-2.0", "Apache-2.0"), ("MIT License", "MIT"), ("llama3.2", None)])
def test_a_licence_is_named_as_spdx_does_where_it_has_a_name_there(stated, spdx):
    assert spdx_of(stated) == spdx


def test_a_text_that_must_travel_and_is_missing_is_asked_for(text):
    missing = refusal(llama())
    assert "its text travel with the model" in missing.message
    assert "--licence FILE" in missing.hint
    assert check(llama(text)) == []
    assert check(llama(given=text)) == []


def test_one_gnu_licence_is_not_taken_for_another(tmp_path):
    path = tmp_path / "COPYING"
    stated = {
        "gpl-3.0": "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n",
        "lgpl-3.0": "GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n",
        "agpl-3.0": "GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007\n",
    }
    for own, text in stated.items():
        path.write_text(text)
        for name in stated:
            asked = Asked(name="tiny", stated=name, texts=(("COPYING", path),), given=None)
            if name == own:
                assert check(asked) == []
            else:
                assert "its text travel with the model" in refusal(asked).message
    assert "GNU GPL 3" in licence_of("lgpl-3.0").duties["text"]


def test_another_licences_text_among_the_models_files_is_not_taken_for_its_own(tmp_path):
    other = tmp_path / "LICENSE"
    other.write_text("MIT License\nPermission is hereby granted\n")
    assert "hold none" in refusal(llama(other)).message
    write(Asked(name="tiny", stated="apache-2.0", texts=(("LICENSE", other),)), tmp_path / "licences")
    found = {path.name: path.read_text() for path in (tmp_path / "licences").iterdir()}
    assert found["LICENSE"].startswith("MIT")
    assert "Apache License" in found["Apache-2.0.txt"]


def test_a_name_that_the_licence_asks_for_is_required(text):
    wrong = refusal(llama(text, name="assistant"))
    assert "begin with 'Llama'" in wrong.message
    assert "--name llama-assistant" in wrong.hint


def test_a_licence_without_derivatives_is_refused_unless_permission_is_given(text):
    asked = Asked(name="tiny", stated="cc-by-nd-4.0")
    assert "forbids passing on what was adapted" in refusal(asked).message
    assert check(msgspec.structs.replace(asked, given=text)) == []


def test_a_licence_that_is_unknown_or_not_stated_is_a_warning_in_words():
    (warning,) = check(Asked(name="tiny", stated="our-own-1.0"))
    assert "'our-own-1.0' is not in edgeml's table" in warning
    (warning,) = check(Asked(name="tiny", stated=None))
    assert "no licence is stated" in warning
    assert "knows nothing of that one" in duties(Asked(name="tiny", stated="our-own-1.0"))


def test_what_must_not_be_used_commercially_is_said():
    (warning,) = check(Asked(name="tiny", stated="cc-by-nc-4.0"))
    assert "not commercial" in warning


def test_a_text_that_is_named_and_missing_is_refused(tmp_path):
    assert "is no file" in refusal(llama(given=tmp_path / "none.txt")).message


def test_duties_name_what_is_to_be_done_and_that_this_is_no_advice(text, tmp_path):
    write(llama(text), tmp_path / "licences")
    told = (tmp_path / "licences" / "DUTIES.md").read_text()
    for words in ('"Built with Llama"', "acceptable use policy", "not legal advice", "not against the whole text"):
        assert words in told
    notice = (tmp_path / "licences" / "NOTICE").read_text()
    assert notice.startswith("Llama 3.2 is licensed under the Llama 3.2 Community License")


def test_a_notice_of_the_models_own_stays_as_it_is(text, tmp_path):
    own = tmp_path / "NOTICE"
    own.write_text("ours\n")
    asked = Asked(name="llama-tiny", stated="llama3.2", texts=(("LICENSE.txt", text), ("NOTICE", own)))
    write(asked, tmp_path / "licences")
    assert (tmp_path / "licences" / "NOTICE").read_text() == "ours\n"


def test_packing_refuses_and_leaves_nothing(tmp_path, text):
    store = Store(tmp_path / "artifacts")
    variant = onnx_variant(store.variant_folder("llama-tiny", "onnx-fp32"), name="llama-tiny/onnx-fp32")
    stated = msgspec.structs.replace(variant, manifest=msgspec.structs.replace(variant.manifest, licence="llama3.2"))
    with pytest.raises(EdgemlError, match="hold none"):
        package(stated, store=store, profile=profile(None), kind="dir", wheels=False)
    assert not (store.root / "bundles").exists()
    bundle = package(stated, store=store, profile=profile(None), kind="dir", wheels=False, licence=text)
    assert (bundle_path(store, bundle) / "licences" / "LICENCE-GIVEN.txt").read_text() == text.read_text()


def test_a_wheels_classifier_counts_where_it_states_no_licence(tmp_path):
    plain = write_wheel(tmp_path, {"x.py": b""})
    with opened(plain) as wheel:
        assert wheel.licence() == "MIT"
        assert wheel.classified() is None
    assert licence_of("Apache-2.0") is licence_of("apache-2.0")
