"""What is missing when a kind is added: each list of names agrees with the modules and tables that it stands for."""

from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from edgeml import bundles, doctor, sources
from edgeml.cli import cli
from edgeml.formats import _LIBRARIES
from edgeml.formats.gguf.audit import MIXTURES
from edgeml.formats.onnx.int8 import INTEGERS
from edgeml.targets import profile, profiles
from edgeml.targets.types import Kernels
from edgeml.types import SCHEMES, SOURCES, ModelRef, Scheme
from edgeml.wheels import PACKAGES
from edgeml_runtime import meters
from edgeml_runtime.tasks import NAMES, task_of

SRC = Path(__file__).parent.parent / "src"


def modules(folder):
    """The names of a folder's modules that stand for a kind: those with no prefix of another's."""
    return {path.stem for path in (SRC / folder).glob("*.py")} - {"__init__"}


def choices(command, option):
    return set(next(one.type.choices for one in cli.commands[command].params if one.name == option))


def test_every_gguf_scheme_has_its_mixture():
    assert set(SCHEMES["gguf"]) == set(MIXTURES)


@pytest.mark.parametrize("format", SCHEMES)
def test_every_format_writes_runs_and_travels(format):
    assert callable(import_module(f"edgeml.formats.{format}.conversion").convert)
    assert callable(import_module(f"edgeml_runtime.backends.{format}").open_variant)
    assert PACKAGES[format]
    assert _LIBRARIES[format]
    assert format in choices("download", "runtime")


def test_what_runs_each_kind_of_variant_can_be_fetched():
    assert set(PACKAGES) == choices("download", "runtime")


def test_every_family_of_processors_has_its_rule_for_whole_numbers():
    assert set(get_args(Kernels)) == set(INTEGERS)


@pytest.mark.parametrize("found", profiles(), ids=lambda found: found.name)
def test_every_target_has_known_schemes_kernels_and_wheels(found):
    for text in (*found.schemes_encoder, *found.schemes_decoder):
        assert str(Scheme.parse(text)) == text
    assert found.integer_kernels in INTEGERS
    assert found.wheel_platforms
    assert all(version.startswith("3.") for version in found.python)
    assert all(profile(word) == found for word in (found.name, *found.aliases))


def test_every_task_has_a_module_that_does_what_a_task_does():
    assert modules("edgeml_runtime/tasks") - {"encoding"} == {name.replace("-", "_") for name in NAMES}
    assert modules("edgeml/scores") == {name.replace("-", "_") for name in NAMES}
    for name in NAMES:
        task = task_of(name)
        assert isinstance(task.COLUMNS, tuple)
        assert isinstance(task.DEFAULT_REPEATS, int)
        assert isinstance(task.STEADY_IN_ANSWERS, bool)
        assert all(callable(getattr(task, verb)) for verb in ("first", "cost", "answers", "predict"))


def test_every_source_can_be_named_and_fetches():
    assert set(sources._MODULES) == {*SOURCES, "local"}
    for name, module in sources._MODULES.items():
        assert callable(import_module(f"edgeml.sources.{module}").fetch)
        assert name == "local" or ModelRef.parse(f"{name}:a/b" if name == "hf" else f"{name}:a").source == name


def test_every_kind_of_bundle_has_a_module_and_can_be_asked_for():
    assert (
        modules("edgeml/bundles") - {"extraction", "verification"} == set(bundles.KINDS) == choices("package", "kind")
    )
    for name in bundles.KINDS:
        kind = bundles.kind_of(name)
        assert isinstance(kind.SUFFIX, str)
        assert all(callable(getattr(kind, verb)) for verb in ("seal", "read", "same", "unpack"))


def test_every_meter_of_energy_has_a_module_a_place_and_a_title():
    found = {name for name in modules("edgeml_runtime/meters") if hasattr(meter_module(name), "open_meter")}

    assert found == set(meters.AUTO) == set(doctor._SENSORS)
    assert set(meters.NAMES) == {*meters.AUTO, *meters.UNREAD}
    assert set(meters.UNREAD) <= modules("edgeml_runtime/meters")


def meter_module(name):
    return import_module(f"edgeml_runtime.meters.{name}")
