"""Profiles of devices: what may stand in one, how one is named, and which a machine fits."""

from __future__ import annotations

import re

import pytest
import yaml
from click.testing import CliRunner
from msgspec.structs import replace

from edgeml.cli import cli
from edgeml.errors import EdgemlError
from edgeml.render import as_text
from edgeml.targets import contradictions, is_here, own_name, profile, profile_of, profiles, template
from edgeml.targets import recognition as recognitions
from edgeml.targets.files import facts, shipped
from edgeml.targets.recognition import here, recognised
from edgeml.targets.types import Probe
from edgeml.targets.ways import a, away, ways
from edgeml_runtime.meters import NAMES

GIB = 2**30
RASPBERRY = ("pi5", "pi4", "pi3", "pi-zero2w")


def probe(**fields):
    """A 64-bit Linux device, of a kind that says nothing of itself."""
    known = {
        "machine": "aarch64",
        "userland_bits": 64,
        "system": "Linux 6.12",
        "pythons": ("3.13",),
        "home": "home",
    }
    return Probe(**known | fields)


def pi(model, **fields):
    return probe(model=model, **fields)


def refusal(asked, **options):
    with pytest.raises(EdgemlError) as caught:
        profile(asked, **options)
    return caught.value


def mine(tmp_path, **changes):
    """A file of one's own: the template with some keys replaced, or left out where they are None."""
    plain = yaml.safe_load(template()) | changes
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in plain.items() if value is not None}))
    return str(path)


# What edgeml knows


@pytest.mark.parametrize("found", profiles(), ids=lambda found: found.name)
def test_every_fact_says_where_it_stands_and_since_when(found):
    for key, fact in facts(found):
        assert len(fact.source) > 10, key
        assert re.fullmatch(r"(read )?20\d\d(-\d\d-\d\d)?", fact.date), key


@pytest.mark.parametrize("found", profiles(), ids=lambda found: found.name)
def test_every_profile_says_whether_edgeml_ever_ran_on_one_and_what_reads_its_energy(found):
    assert found.hardware
    assert "external" in found.meters
    assert set(found.meters) <= set(NAMES)


def test_each_raspberry_pi_can_be_emulated_as_its_own_processor():
    known = {one.name: (one.emulated_cpu, one.cpu_part, "asimddp" in one.cpu_features) for one in profiles()}

    assert known["pi5"] == ("cortex-a76", "0xd0b", True)
    assert known["pi4"] == ("cortex-a72", "0xd08", False)
    assert known["pi3"] == known["pi-zero2w"] == ("cortex-a53", "0xd03", False)
    assert profile("pi4").cpu_features == ("fp", "asimd", "evtstrm", "crc32", "cpuid")


def test_no_word_names_two_targets():
    words = [word for one in profiles() for word in (one.name, *one.aliases)]

    assert len(set(words)) == len(words)


def test_an_android_phone_is_told_to_be_untested_and_takes_no_wheel_for_linux():
    phone = profile("android")

    assert phone.hardware == "untested"
    assert not any("linux" in name for name in phone.wheel_platforms)
    assert any("manylinux" in note for note in phone.notes)


# How a target is named


@pytest.mark.parametrize("asked", ["zero2w", "pi02w", "PI-Zero2W", "pi-zero-2w"])
def test_the_names_that_people_type_are_known(asked):
    assert profile(asked) == profile("pi-zero2w")


def test_a_memory_size_is_chosen_and_the_name_stays():
    found = profile("pi:4gb")

    assert (found.name, found.chosen_gb, found.asked) == ("pi5", 4, "pi5:4gb")
    assert profile("pi-zero2w:512MB").chosen_gb == 0.5
    assert profile("pi-zero2w:512MB").asked == "pi-zero2w:512mb"


def test_a_size_that_is_not_sold_is_refused_with_those_that_are():
    error = refusal("pi5:3gb")

    assert error.message == "there is no Raspberry Pi 5 with 3 GB of memory"
    assert error.hint == "sold with: 1 GB, 2 GB, 4 GB, 8 GB, 16 GB"
    assert "no size that edgeml knows" in refusal("arm64-linux:4gb").hint


@pytest.mark.parametrize("asked", ["apple-silicon:m4-pro:24gb", "mac:24gb:m4pro", "mac:Apple M4 Pro:24 GB"])
def test_a_chip_is_chosen_with_its_own_facts_and_sizes(asked):
    found = profile(asked)

    assert (found.name, found.asked) == ("apple-silicon", "apple-silicon:m4-pro:24gb")
    assert found.bandwidth_gb_s["spec"] == found.chips["m4-pro"].bandwidth_gb_s
    assert found.memory_gb == (24, 48, 64)


def test_a_chip_is_without_the_sizes_of_another():
    assert refusal("apple-silicon:m2:96gb").hint == "sold with: 8 GB, 16 GB, 24 GB"
    assert "m2-max" in refusal("apple-silicon:m9").hint
    assert "no chip to choose" in refusal("pi5:m2").message
    assert "is another" in refusal("pi5:4gb:8gb").message


def test_an_unknown_target_is_refused_with_the_nearest():
    assert refusal("pi-zero2").hint == "did you mean pi-zero2w?"
    assert "pi5" in refusal("toaster").hint


# One's own profile


def test_the_template_is_a_profile_as_it_stands_and_with_all_that_it_comments_out(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(template())
    bare = profile(str(path))
    path.write_text(re.sub(r"^# (?=[a-z0-9_]+:|  )", "", template(), flags=re.MULTILINE))
    whole = profile(str(path))

    assert bare.name == whole.name == "my-device"
    assert bare.asked == str(path)
    assert whole.chosen_gb is None
    assert [key for key, _ in facts(whole)] == [
        "cores",
        "system_gb",
        "idle_w",
        "busy_w",
        "bandwidth_gb_s.spec",
        "bandwidth_gb_s.decode",
        "compute_gop_s.fp32_peak",
    ]
    assert whole.emulated_cpu == "cortex-a72"
    assert profile(f"{path}:8gb").asked == f"{path}:8gb"


def test_a_file_of_edgemls_own_can_be_the_beginning_of_ones_own(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(template("pi").replace("name: pi5", "name: my-pi"))

    assert profile(str(path)).cpu_part == profile("pi5").cpu_part
    with pytest.raises(EdgemlError, match="unknown target"):
        template("pi9")


def test_a_file_is_sought_in_the_folder_that_names_it(tmp_path):
    mine(tmp_path)

    assert profile("./mine.yaml", folder=tmp_path).name == "my-device"
    assert refusal("./mine.yaml", folder=tmp_path / "other").hint.startswith(
        "write one with: edgeml targets --template"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"titel": "x"}, "unknown field `titel`"),
        ({"busy_w": {"value": 5, "low": 6, "source": "a", "date": "2026"}}, "busy_w: the value 5 is not between low 6"),
        ({"idle_w": {"value": -1, "source": "a", "date": "2026"}}, "idle_w: -1 is below 0"),
        ({"idle_w": {"value": 1, "source": " ", "date": "2026"}}, "idle_w: it needs a source and a date"),
        ({"meters": ["pmik"]}, "unknown energy meter 'pmik'"),
        ({"wheel_platforms": ["manylinux_2_17_x86_64"]}, "manylinux_2_17_x86_64 do not run on aarch64"),
        ({"wheel_platforms": []}, "at least one each"),
        ({"integer_kernels": "sve"}, "Invalid enum value 'sve'"),
        ({"schemes_decoder": ["gguf:q9"]}, "schemes_decoder: unknown scheme 'gguf:q9'"),
        ({"python": ["3"]}, "is no version such as '3.11'"),
        ({"memory_gb": [0]}, "not above 0"),
        ({"emulated_cpu": "cortex-a72"}, "needs cpu_part"),
        ({"cpu_part": "d0b"}, "is no number such as '0xd0b'"),
        ({"name": "My Device"}, "cannot be a target's name"),
        ({"name": "pi"}, "pi is a target of edgeml's own"),
        ({"chosen_gb": 4}, "do not stand in a file"),
        ({"schema": None}, "has schema None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_true_of_a_device_is_refused_with_its_place(tmp_path, changes, said):
    error = refusal(mine(tmp_path, **changes))

    assert "mine.yaml" in error.message
    assert said in error.message
    assert error.hint


def test_an_unknown_key_is_refused_with_the_nearest(tmp_path):
    assert refusal(mine(tmp_path, titel="x")).hint == "did you mean 'title'?"
    assert refusal(mine(tmp_path, meters=["pmik"])).hint == "did you mean pmic?"


@pytest.mark.parametrize("text", ["a: [", "name: a\nname: b"], ids=["broken", "a key twice"])
def test_what_is_no_yaml_is_refused_with_its_line(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    assert re.search(r"is not YAML: line \d", refusal(str(path)).message)


def test_a_date_needs_no_quotes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{template()}\nidle_w: {{value: 2, source: a meter, date: 2026-01-31}}\n")

    assert profile(str(path)).idle_w.date == "2026-01-31"


# Which profile a machine fits


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0\0", "pi5"),
        ("Raspberry Pi 500 Rev 1.0", "pi5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "pi5"),
        ("Raspberry Pi 4 Model B Rev 1.5", "pi4"),
        ("Raspberry Pi 400 Rev 1.0", "pi4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "pi4"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi3"),
        ("Raspberry Pi Compute Module 3 Plus Rev 1.0", "pi3"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "pi-zero2w"),
        ("Raspberry Pi 2 Model B Rev 1.2", "arm64-linux"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "arm64-linux"),
        (None, "arm64-linux"),
    ],
)
def test_a_board_is_known_by_its_device_tree(model, name):
    assert profile_of(pi(model)).name == name


def test_a_mac_is_known_by_its_chip():
    found = profile_of(probe(machine="arm64", system="Darwin 24.1", model="Apple M2 Pro", memory_bytes=32 * GIB))

    assert found.asked == "apple-silicon:m2-pro:32gb"
    assert profile_of(probe(machine="arm64", system="Darwin 27.0", model="Apple M9")).asked == "apple-silicon"


def test_other_machines_are_known_by_their_kind():
    assert profile_of(probe(machine="x86_64")).name == "laptop"
    assert profile_of(probe(machine="AMD64", system="Windows 11")).name == "laptop"
    assert profile_of(probe(home="/data/data/com.termux/files/home")).name == "android"
    assert profile_of(probe(system="Android 14")).name == "android"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"machine": "x86_64", "system": "Darwin 23.6"}, "an Intel Mac"),
        ({"machine": "ARM64", "system": "Windows 11"}, "aarch64 machine with Windows"),
        ({"machine": "riscv64"}, "riscv64 machine with Linux"),
        ({"machine": "armv7l", "userland_bits": 32}, "programs are 32-bit, on a 32-bit kernel"),
    ],
)
def test_a_machine_of_no_known_kind_is_refused_with_how_to_write_its_profile(monkeypatch, fields, said):
    with pytest.raises(EdgemlError, match=said) as caught:
        profile_of(probe(**fields))

    assert "edgeml targets --template" in caught.value.hint
    monkeypatch.setattr(recognitions, "here", lambda: probe(**fields))
    assert not any(map(is_here, profiles()))


@pytest.mark.parametrize(
    ("said_gib", "size"), [(0.41, 0.5), (0.9, 1), (1.84, 2), (3.7, 4), (7.63, 8), (7.87, 8), (15.8, 16), (23.5, None)]
)
def test_memory_is_the_size_that_was_sold(said_gib, size):
    model = "Raspberry Pi Zero 2 W Rev 1.0" if said_gib < 0.5 else "Raspberry Pi 5 Model B Rev 1.0"

    assert profile_of(pi(model, memory_bytes=int(said_gib * GIB))).chosen_gb == size


def test_the_targets_own_machine_is_this_one(monkeypatch):
    five = pi("Raspberry Pi 5 Model B Rev 1.0", memory_bytes=int(7.87 * GIB))
    monkeypatch.setattr(recognitions, "here", lambda: five)

    assert is_here(profile("pi5"))
    assert is_here(profile("pi5:8gb"))
    assert not is_here(profile("pi5:4gb"))
    assert not is_here(profile("pi4"))
    assert not is_here(profile("arm64-linux"))
    assert ways(profile("pi5")) == ("here",)


def test_another_chip_is_not_this_machine(monkeypatch):
    mac = probe(machine="arm64", system="Darwin 24.1", model="Apple M2", memory_bytes=16 * GIB)
    monkeypatch.setattr(recognitions, "here", lambda: mac)

    assert is_here(profile("apple-silicon:m2:16gb"))
    assert not is_here(profile("apple-silicon:m4"))
    assert ways(profile("apple-silicon:m4"))[0] == "over SSH"


def test_ones_own_board_is_known_by_what_its_file_says(tmp_path, monkeypatch):
    monkeypatch.setattr(recognitions, "here", lambda: pi("NVIDIA Jetson Orin Nano"))

    assert is_here(profile(mine(tmp_path, device_tree_model="NVIDIA Jetson Orin")))
    assert is_here(profile(mine(tmp_path, known_by=["Another", "NVIDIA Jetson"])))
    assert not is_here(profile(mine(tmp_path, device_tree_model="NVIDIA Jetson Nano")))
    assert not is_here(profile(mine(tmp_path)))


def test_this_machine_fits_its_own_profile():
    assert profile(None) == profile_of(here()) == recognised(here())
    assert own_name() == profile(None).name
    assert is_here(profile(None))


# Where a device contradicts a profile

FIVE = {"cpu_part": "0xd0b", "cpu_features": ("fp", "asimd", "asimdhp", "asimddp"), "memory_bytes": int(7.87 * GIB)}


def test_a_device_that_is_what_was_asked_for_contradicts_nothing():
    five = pi("Raspberry Pi 5 Model B Rev 1.1", **FIVE)

    assert contradictions(profile("pi5:8gb"), five) == []
    assert contradictions(profile("arm64-linux"), five) == []
    assert contradictions(profile("pi5"), probe()) == []  # what it does not say, it does not deny


def test_another_board_is_named():
    four = pi("Raspberry Pi 4 Model B Rev 1.5", cpu_part="0xd08", cpu_features=("fp", "asimd", "crc32"))

    assert contradictions(profile("pi5"), four) == [
        "it calls itself 'Raspberry Pi 4 Model B Rev 1.5', which is pi4",
        "its processor lacks asimddp, which pi5 has",
    ]


def test_another_processor_is_told_where_no_board_says_its_name():
    assert contradictions(profile("pi5"), probe(cpu_part="0xd0c")) == [
        "its processor's part number is 0xd0c, and that of pi5 is 0xd0b"
    ]
    assert contradictions(profile("pi5"), probe(machine="x86_64"))[0] == "it is a x86_64 machine, and pi5 is aarch64"


def test_another_chip_or_memory_size_is_told():
    mac = probe(machine="arm64", system="Darwin 24", model="Apple M2", memory_bytes=16 * GIB)
    five = pi("Raspberry Pi 5 Model B Rev 1.1", **FIVE)

    assert contradictions(profile("mac:m4"), mac) == ["its chip is 'Apple M2', not 'Apple M4'"]
    assert contradictions(profile("mac:m2:8gb"), mac) == ["it has 16.0 GiB of memory, not 8 GB"]
    assert contradictions(profile("pi5:4gb"), five) == ["it has 7.9 GiB of memory, not 4 GB"]
    assert contradictions(profile("pi5:4gb"), replace(five, emulator="qemu-aarch64")) == []


def test_32_bit_programs_on_a_64_bit_kernel_are_told_with_the_reason():
    (said,) = contradictions(profile("pi4"), pi("Raspberry Pi 4 Model B Rev 1.5", userland_bits=32))

    assert said.startswith("its programs are 32-bit, on a 64-bit kernel")
    assert "no such wheels of ONNX Runtime (armv7l)" in said


def test_a_phone_and_a_linux_machine_are_not_taken_for_each_other():
    phone = probe(home="/data/data/com.termux/files/home")

    assert contradictions(profile("android"), phone) == []
    assert contradictions(profile("arm64-linux"), phone) == ["it runs Android, where no wheel for Linux installs"]
    assert contradictions(profile("android"), probe()) == ["it does not run Android"]


# What is told of a target that is not at hand


@pytest.fixture
def _on_a_laptop(monkeypatch):
    """A Linux laptop in whose cache nothing was prepared."""
    monkeypatch.setattr(recognitions, "here", lambda: probe(machine="x86_64"))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.usefixtures("_on_a_laptop")
def test_the_first_line_says_that_nothing_was_measured_on_one_and_how_it_would_be():
    first, *rest = away(profile("pi5:4gb"))

    assert first.startswith("nothing below was measured on a Raspberry Pi 5 with 4 GB: ")
    assert away(profile("mac:m2"))[0].startswith("nothing below was measured on an Apple-silicon Mac (Apple M2): ")
    assert "--host user@address" in first
    assert [line.split()[0] for line in rest] == ["measured", "emulated", "estimated:"]
    assert "a cortex-a76" in rest[1]
    assert "edgeml download --emulator --target pi5:4gb" in rest[1]


@pytest.mark.usefixtures("_on_a_laptop")
def test_of_a_mac_nothing_can_be_emulated_and_of_an_unknown_board_nothing_estimated():
    _, here_, emulated, estimated = away(profile("apple-silicon"))

    assert here_.startswith("measured here")
    assert emulated == "not emulated: nothing here runs the programs of an Apple-silicon Mac"
    assert estimated.startswith("estimated once you name a chip")
    assert "(m1, m1-pro, " in estimated
    assert away(profile("apple-silicon:m2"))[-1].startswith("estimated: ")
    assert away(profile("arm64-linux"))[-1].startswith("not estimated but for memory: ")
    assert {one.name: ways(one) for one in profiles()} == {
        "laptop": ("here",),
        "android": ("over SSH",),
        "arm64-linux": ("over SSH",),
        "apple-silicon": ("over SSH", "estimated"),
        **dict.fromkeys(RASPBERRY, ("over SSH", "emulated", "estimated")),
    }


def test_nothing_is_emulated_where_no_emulator_can_be(monkeypatch):
    monkeypatch.setattr(recognitions, "here", lambda: probe(machine="arm64", system="Darwin 24", model="Apple M2"))
    monkeypatch.setattr("platform.system", lambda: "Darwin")

    assert "emulated" not in ways(profile("pi5"))
    assert any(line.startswith("not emulated: devices are emulated on Linux") for line in away(profile("pi5")))


@pytest.mark.parametrize(
    ("noun", "said"), [("x86-64 laptop", "an"), ("Apple", "an"), ("Raspberry", "a"), ("64-bit", "a")]
)
def test_nouns_have_their_article(noun, said):
    assert a(noun) == f"{said} {noun}"


# How targets are shown


def run(*arguments):
    return CliRunner().invoke(cli, ["targets", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("found", profiles(), ids=lambda found: found.name)
def test_a_target_is_shown_whole_on_a_narrow_screen(found):
    text = as_text([found], 80)

    assert all(len(line) <= 80 for line in text.splitlines())
    flat = " ".join(text.split())
    assert all(" ".join(note.split()) in flat for note in found.notes)
    assert found.hardware in flat


def test_every_fact_is_shown_with_value_range_unit_source_and_date():
    text = as_text([profile("pi5")], 160)

    row = next(line for line in text.splitlines() if line.startswith("idle "))
    assert row.split(maxsplit=6)[1:5] == ["3", "2.9", "to", "3.1"]
    assert "  W  " in row
    assert "geerlingguy/sbc-reviews#60, #81 (500 and 500+); read 2026-11-25" in row
    assert "bandwidth, decode" in text
    assert "bandwidth, decode" in as_text([profile("apple-silicon:m2")], 160)
    assert "m4-max: bandwidth" not in as_text([profile("apple-silicon:m2")], 160)
    assert "m4-max: bandwidth" in as_text([profile("apple-silicon")], 160)


@pytest.mark.usefixtures("_on_a_laptop")
def test_one_target_ends_with_what_can_be_done_without_one():
    text = run("pi4").stdout

    assert "With one at hand: edgeml bench --target pi4 --host user@address" in text
    assert "Without one at hand:\n- measured here" in text
    assert "This machine is one" in run("laptop").stdout
    assert "no figures of it are known" in run("arm64-linux").stdout


def test_the_table_has_every_target():
    text = as_text(profiles(), 160)

    assert all(line in text for line in ("pi5 = pi", "16 GB", "over SSH", "pmic hwmon external"))
    assert len(text.splitlines()) >= len(shipped()) + 2


def test_targets_are_json_lines_and_an_unknown_one_is_refused():
    assert run("pi5:4gb", "--json").stdout.count('"chosen_gb":4.0') == 1
    assert run("--json").stdout.count("\n") == len(profiles())
    with pytest.raises(EdgemlError, match="unknown target 'pi9'"):
        run("pi9")


def test_the_template_comes_on_stdout_alone():
    assert run("--template").stdout == template()
    assert run("pi", "--template").stdout == template("pi5")


def test_the_name_is_completed_by_the_shell():
    (argument,) = [one for one in cli.commands["targets"].params if one.name == "target"]

    context = cli.commands["targets"].make_context("targets", [], resilient_parsing=True, **cli.context_settings)
    assert [one.value for one in argument.shell_complete(context, "pi4")] == ["pi4", "pi400"]
