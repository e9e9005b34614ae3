"""What is known of a device before it is met, and what it says of itself. Frozen values without I/O."""

from __future__ import annotations

from typing import Literal

from edgeml_runtime.types import Record

Kernels = Literal["x86-64-avx2", "x86-64-vnni", "arm64", "arm64-dotprod"]  # families of processors, by integer product


class Fact(Record, frozen=True, kw_only=True):
    """One published or measured number about a device, in the unit that its key names, and where it stands.

    `low` and `high` are the range in which sources, or boards, differ. `date` is that of the source, ISO, as far as it
    is known; `read 2026-11-25` where the source bears none.
    """

    value: float
    source: str
    date: str
    low: float | None = None
    high: float | None = None


class Chip(Record, frozen=True, kw_only=True):
    """One of the chips that a profile covers, such as the M2 among Apple's: what differs between them.

    `title` is what the machine calls it, `bandwidth_gb_s` the maker's own figure, and `decode_gb_s` what llama.cpp
    streamed of its weights while it wrote.
    """

    title: str
    bandwidth_gb_s: Fact
    memory_gb: tuple[float, ...]
    decode_gb_s: Fact | None = None
    idle_w: Fact | None = None
    busy_w: Fact | None = None


class Profile(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.target/1"):
    """What is known of a kind of target before it is met; one YAML file each in `targets/profiles/`, or one's own.

    `device_tree_model` is how the name begins that such a board gives itself, `known_by` how those of its relatives do;
    of a PC it is the product's name, of a Mac its chip's. `emulated_cpu` is the name that QEMU has for its processor,
    `cpu_part` the number that its /proc/cpuinfo shows, `cpu_features` the words there that decide which kernels run.
    `memory_gb` are the sizes that are sold (GB as the maker counts, 2**30 bytes), first the one that is meant where
    none is named; `system_gb` is what its own system keeps of them. `bandwidth_gb_s` (1e9 byte a second) and
    `compute_gop_s` (1e9 multiplications and additions a second) are keyed by how they were had, power is in watts at
    the wall. `meters` can read its energy. `chips` are what the profile covers, where they differ much. `chosen_gb` and
    `chosen_chip` are what a name such as `pi5:4gb` picked, and `file` where one's own profile was read: no file holds
    these. `hardware` says whether edgeml ever ran on one.
    """

    name: str
    title: str
    machine: str
    integer_kernels: Kernels
    wheel_platforms: tuple[str, ...]
    python: tuple[str, ...]
    schemes_encoder: tuple[str, ...]
    schemes_decoder: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    device_tree_model: str | None = None
    known_by: tuple[str, ...] = ()
    cpu: str | None = None
    cpu_features: tuple[str, ...] = ()
    cpu_part: str | None = None
    emulated_cpu: str | None = None
    cores: Fact | None = None
    memory_gb: tuple[float, ...] = ()
    system_gb: Fact | None = None
    bandwidth_gb_s: dict[str, Fact] = {}
    compute_gop_s: dict[str, Fact] = {}
    idle_w: Fact | None = None
    busy_w: Fact | None = None
    meters: tuple[str, ...] = ()
    chips: dict[str, Chip] = {}
    chosen_gb: float | None = None
    chosen_chip: str | None = None
    hardware: str | None = None
    notes: tuple[str, ...] = ()
    file: str | None = None

    @property
    def asked(self) -> str:
        """What `--target` must be given to mean it: its name or file, its chip and memory size where they were."""
        size = None if self.chosen_gb is None else memory_words(self.chosen_gb).replace(" ", "").lower()
        return ":".join(part for part in (self.file or self.name, self.chosen_chip, size) if part)


class Probe(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.probe/1"):
    """What a device said of itself over SSH; absent keys are unknown.

    `machine` is the kernel's word, `userland_bits` that of the programs. `pythons` are the versions (`3.11`) that it
    has. `emulator` is what runs its programs, where they are not for its own processor. `unix_time_s` is its clock.
    """

    machine: str
    userland_bits: int
    system: str
    pythons: tuple[str, ...]
    home: str
    model: str | None = None
    release: str | None = None
    cpu_part: str | None = None
    cpu_features: tuple[str, ...] = ()
    cores: int | None = None
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    disk_free_bytes: int | None = None
    page_bytes: int | None = None
    libc: str | None = None
    governor: str | None = None
    throttled: tuple[str, ...] | None = None
    emulator: str | None = None
    unix_time_s: float | None = None


class Device(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.device/1"):
    """A device that `--host` may name: where SSH finds it, and the profile that it turned out to be."""

    name: str
    host: str
    target: str | None = None


class Estimate(Record, frozen=True, kw_only=True):
    """One figure of a device that is not there: the value, and the interval that `level` of such devices lie in.

    Without a `level`, `low` and `high` are stated bounds, of which no share is claimed. `method` says what was
    calculated from what, `sources` whose published figures it rests on.
    """

    metric: str
    unit: str
    statistic: str
    value: float
    low: float
    high: float
    method: str
    level: float | None = None
    sources: tuple[str, ...] = ()


class Runtime(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.runtime/1"):
    """A wheel of a compiled runtime, in its place: bundles and devices of `targets` take it from there.

    `cpus` are the kinds of CPU that it has kernels for, of which it loads the fitting ones; empty where it has one kind
    alone. `dot_products` counts the dot-product instructions (SDOT, UDOT) in its code, 0 on any machine but AArch64;
    `glibc` is the oldest that has all that it asks for. `built_with` are the compiler and the flags, absent where
    edgeml did not build it. `seconds` is how long that took, absent where nothing was built now.
    """

    package: str
    version: str
    targets: tuple[str, ...]
    file: str
    size_bytes: int
    sha256: str
    cpus: tuple[str, ...] = ()
    dot_products: int = 0
    glibc: str | None = None
    built_with: dict[str, str] = {}
    seconds: float | None = None
    warnings: tuple[str, ...] = ()


def memory_words(memory_gb: float) -> str:
    """A memory size as it is sold: `4 GB`, `512 MB`."""
    return f"{memory_gb:g} GB" if memory_gb >= 1 else f"{memory_gb * 1024:g} MB"
