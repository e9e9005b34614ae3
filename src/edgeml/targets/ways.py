"""How a target can be reached from this machine, and what is told of one that is not at hand."""

from __future__ import annotations

from edgeml.errors import EdgemlError
from edgeml.targets import recognition
from edgeml.targets.emulator import check_possible, qemu_file, root_folder
from edgeml.targets.recognition import is_here
from edgeml.targets.types import Profile, memory_words


def ways(profile: Profile) -> tuple[str, ...]:
    """How figures of a target can be had, the best way first: `here`, or `over SSH`, `emulated`, `estimated`."""
    if is_here(profile):
        return ("here",)
    emulated = ("emulated",) if _why_not_emulated(profile) is None else ()
    return ("over SSH", *emulated, *(("estimated",) if _has_figures(profile) else ()))


def away(profile: Profile, *, parity_rows: int = 1) -> list[str]:
    """What must be known of a bench whose target is neither this machine nor reached over SSH, a line each.

    The first says that nothing was measured on such a device, and how it would be. Without rows to emulate, nothing is.
    """
    return [
        f"nothing below was measured on {a(_titled(profile))}: to measure on one, add --host user@address",
        *instead(profile, parity_rows=parity_rows),
    ]


def instead(profile: Profile, *, parity_rows: int = 1) -> list[str]:
    """What is measured here, emulated and estimated in the place of measuring on the target, and what is not; why."""
    own = recognition.recognised(recognition.here())
    reason = _why_not_emulated(profile) if parity_rows else "no rows were asked for"
    if reason is None:
        emulated = f"emulated here: whether {a(str(profile.emulated_cpu))} computes the same; its times are not shown"
        if not is_prepared():
            emulated += f", and it needs: edgeml download --emulator --target {profile.asked}"
    else:
        emulated = f"not emulated: {reason}"
    return [
        f"measured here, on {a(own.title) if own else 'this machine'}: what a variant answers, and how good that is",
        emulated,
        _estimated(profile),
    ]


def is_prepared() -> bool:
    """Whether the emulator and the Python for ARM64 are here."""
    return qemu_file().exists() and root_folder().is_dir()


def a(noun: str) -> str:
    """A noun with its indefinite article."""
    return f"an {noun}" if noun.lower().startswith(("a", "e", "i", "o", "x86", "8")) else f"a {noun}"


def _titled(profile: Profile) -> str:
    """Its title, with the chip and memory size that were chosen."""
    chip = f" ({profile.chips[profile.chosen_chip].title})" if profile.chosen_chip else ""
    return f"{profile.title}{chip}" + (f" with {memory_words(profile.chosen_gb)}" if profile.chosen_gb else "")


def _why_not_emulated(profile: Profile) -> str | None:
    if profile.emulated_cpu is None:
        return f"nothing here runs the programs of {a(profile.title)}"
    try:
        check_possible(profile)
    except EdgemlError as error:
        return error.message
    return None


def _estimated(profile: Profile) -> str:
    if not _has_figures(profile):
        return "not estimated but for memory: edgeml knows no published speeds of such devices"
    if profile.chips and profile.chosen_chip is None:
        chips = ", ".join(profile.chips)
        return f"estimated once you name a chip, since they differ by ten times: --target {profile.name}:CHIP ({chips})"
    return "estimated: its latency, memory and energy, as intervals, as far as published figures of such devices go"


def _has_figures(profile: Profile) -> bool:
    """Whether any published speed is one of such a device."""
    from edgeml.targets.estimated.points import published  # comes with numpy, which most commands do without

    return any(point.device == profile.name for point in published().points)
