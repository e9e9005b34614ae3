"""Nothing that an emulator distorts is passed on as the device's."""

from msgspec.structs import replace

from edgeml.provenance import how_of, undistorted
from edgeml_runtime.types import Outcome, Samples, State
from test_comparable import HERE


def sample(metric, unit):
    return Samples(
        metric=metric, unit=unit, values=(1.0,), statistics=("median",), unit_of_sample="row", method="by hand"
    )


REAL = Outcome(
    environment=HERE,
    samples=(
        sample("latency", "ms"),
        sample("latency_first", "ms"),
        sample("decode_rate", "token/s"),
        sample("throughput", "text/s"),
        sample("memory_peak_anon", "MiB"),
        sample("energy", "J"),
        sample("energy_decode", "J/token"),
        sample("power_idle", "W"),
        sample("generated", "token"),
        sample("tokens", "token"),
        sample("perplexity", "perplexity"),
        sample("batch.flips", "1"),
    ),
    before=State(),
    after=State(),
)
EMULATED = replace(REAL, environment=replace(HERE, emulator="qemu-aarch64"))


def test_a_real_machines_outcome_is_left_as_it_is():
    assert undistorted(REAL) is REAL
    assert how_of(REAL) == "measured"


def test_under_an_emulator_only_answers_and_counts_are_kept():
    kept = undistorted(EMULATED)

    assert [one.metric for one in kept.samples] == ["generated", "tokens", "perplexity", "batch.flips"]
    assert how_of(kept) == "emulated"
    assert (kept.before, kept.after, kept.energy) == (None, None, None)


def test_what_was_dropped_is_absent_with_the_emulator_named():
    absent = undistorted(EMULATED).absent

    assert [one.metric for one in absent] == ["latency", "memory", "energy"]
    assert all("qemu-aarch64" in one.reason and "--host" in one.hint for one in absent)
