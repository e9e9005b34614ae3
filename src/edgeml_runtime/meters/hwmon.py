"""Power in a supply line, by a Texas Instruments INA2xx or INA3221 that the kernel's hwmon drives, in joules.

Method: `power1_input` in microwatts, or bus voltage (`inN_input`, millivolts) times current (`currN_input`,
milliamperes), read ten times a second and integrated by the trapezoidal rule. Only chips named `ina...` are read: other
hwmon folders hold the power of a graphics card or a battery. Of several channels the one labelled as the board's input
is taken; where none is, nothing is added up, since one line may feed the other.
The driver calculates current from `shunt_resistor`, in micro-ohms. Its default of 10 milliohms is wrong for the usual
breakout board, whose 100 milliohms make every figure ten times too large.
Source: Linux Documentation/hwmon/ina2xx.rst, ina3221.rst and sysfs-interface.rst; INA226 data sheet for 1 % (without
the shunt's own tolerance). Not yet run on such hardware: tested on trees made by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgeml_runtime.meters import About, Reading, absent
from edgeml_runtime.meters.sampling import Sampler
from edgeml_runtime.meters.sysfs import number, text
from edgeml_runtime.types import Absent

HWMON = Path("/sys/class/hwmon")
PERIOD_S = 0.1
MINIMUM_READINGS = 100
DEFAULT_SHUNT_UOHM = 10_000
# Labels of a board's whole input, as NVIDIA's boards carry them; their other channels lie behind it.
_INPUTS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")


class Channel(NamedTuple):
    """One line whose power a chip measures."""

    folder: Path
    number: int
    label: str

    @property
    def shunt_uohm(self) -> int | None:
        """The resistance that the driver calculates with."""
        names = ("shunt_resistor", f"shunt{self.number}_resistor")
        return next((value for name in names if (value := number(self.folder / name)) is not None), None)

    def watts(self) -> float | None:
        """The power now, or None where it cannot be read."""
        power_uw = number(self.folder / f"power{self.number}_input")
        if power_uw is not None:
            return power_uw / 1e6
        volt, ampere = (
            number(self.folder / f"in{self.number}_input"),
            number(self.folder / f"curr{self.number}_input"),
        )
        return None if volt is None or ampere is None else volt * ampere / 1e6


def open_meter() -> Hwmon:
    """The chips of this machine."""
    return Hwmon()


class Hwmon:
    """The chips below `root`."""

    def __init__(self, root: Path = HWMON, *, period_s: float = PERIOD_S) -> None:
        self._root = root
        self._chosen: Channel | None = None
        self._sampler = Sampler(self._watts, period_s=period_s)

    def available(self) -> Absent | None:
        """Why no line's power can be read, or None when one can."""
        channels = self._channels()
        if not channels:
            return absent(f"no energy sensor: no INA2xx or INA3221 in {self._root}")
        if self._channel() is None:
            names = ", ".join(channel.label for channel in channels)
            return absent(
                f"several lines are measured ({names}), and which feeds the board is not known",
                hint=f"label one of them {_INPUTS[0]} in the device tree",
            )
        return None

    def about(self) -> About:
        """The line that the sensor sits in."""
        channel = self._channel()
        assert channel is not None
        shunt = f", shunt {channel.shunt_uohm / 1000:g} milliohm" if channel.shunt_uohm else ""
        return About(
            scope=f"the supply line {channel.label}{shunt}",
            kind="sampled",
            excludes="what lies before the sensor: the power supply's loss",
            uncertainty=0.01,
        )

    def start(self) -> None:
        """Begin to read."""
        self._chosen = self._channel()
        self._sampler.start()

    def enough(self) -> bool:
        """Whether there are a hundred readings: at bursts that leaves an error of about 2.5 %."""
        return len(self._sampler.points) >= MINIMUM_READINGS

    def stop(self) -> Reading | Absent:
        """Joules since `start`."""
        return self._sampler.reading(MINIMUM_READINGS, "the power sensor")

    def warnings(self) -> tuple[str, ...]:
        """That the shunt is the driver's default, where it is."""
        channel = self._channel()
        if channel is None or channel.shunt_uohm != DEFAULT_SHUNT_UOHM:
            return ()
        return (
            "energy: the sensor's shunt is the driver's default of 10 milliohm; on a board with another, every joule "
            "is wrong by their ratio (10 times too many with 100 milliohm): set shunt_resistor",
        )

    def _watts(self) -> float | None:
        return self._chosen.watts() if self._chosen else None

    def _channel(self) -> Channel | None:
        channels = self._channels()
        labelled = [channel for channel in channels if channel.label in _INPUTS]
        return channels[0] if len(channels) == 1 else labelled[0] if len(labelled) == 1 else None

    def _channels(self) -> list[Channel]:
        found = []
        for folder in sorted(self._root.glob("hwmon*")):
            chip = text(folder / "name")
            for line in range(1, 4) if chip and chip.startswith("ina") else ():
                channel = Channel(folder, line, text(folder / f"in{line}_label") or f"{chip}/{line}")
                if channel.watts() is not None:  # a channel that is switched off answers with an error
                    found.append(channel)
        return found
