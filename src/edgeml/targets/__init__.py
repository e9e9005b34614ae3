"""Where a variant runs: profiles of devices, and ways to reach one. Job in, Outcome out."""

from __future__ import annotations

import platform
from importlib.resources import files
from pathlib import Path

import yaml

from edgeml.types import Profile
from edgeml_runtime.errors import unknown
from edgeml_runtime.records import build

DEVICE_TREE_MODEL = Path("/proc/device-tree/model")  # a Raspberry Pi's own name for itself


def profiles() -> list[Profile]:
    """Every profile that edgeml knows, by name."""
    folder = files("edgeml.targets") / "profiles"
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.name.endswith(".yaml")}
    return [build(yaml.safe_load(texts[name]), Profile, where=name) for name in sorted(texts)]


def profile(name: str | None) -> Profile:
    """The profile of that name or alias; without one, this machine's own."""
    known = {word: found for found in profiles() for word in (found.name, *found.aliases)}
    wanted = name or own_name()
    if wanted not in known:
        raise unknown("target", wanted, sorted(known), plural="targets")
    return known[wanted]


def own_name(machine: str | None = None, system: str | None = None, tree: Path = DEVICE_TREE_MODEL) -> str:
    """The name of the profile that this machine fits: a Pi by its device tree, a Mac by its chip, else `laptop`."""
    if tree.exists():
        title = tree.read_text(encoding="utf-8", errors="replace")
        for found in profiles():
            if found.device_tree_model and title.startswith(found.device_tree_model):
                return found.name
    if (system or platform.system()) == "Darwin" and (machine or platform.machine()) == "arm64":
        return "apple-silicon"
    return "laptop"
