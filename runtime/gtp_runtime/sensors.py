"""What a device does while it is timed: temperature, clocks, throttling and energy, read from Linux' sysfs.

Sources: the kernel's documentation of thermal zones (``sysfs-api``), cpufreq, devfreq, powercap and hwmon's ina3221;
x86's ``thermal_throttle`` counters; Raspberry Pi's ``get_throttled``; ``nvidia-smi --help-query-gpu``. A Jetson's
``tegrastats`` prints the same thermal zones, clocks and INA3221 channels, which are read here themselves.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SYSFS = Path("/sys")
EVERY = 0.1  # seconds between two samples
LOWEST_CLOCK = 0.85  # of the highest in a run: less is a drop
TRIPS = ("passive", "hot", "critical")  # at which Linux slows down or stops a device
PI = {1: "under-voltage", 2: "a capped clock", 4: "throttling", 8: "the soft temperature limit"}  # bits, "now"
NVIDIA_QUERY = "temperature.gpu,clocks.sm,clocks.max.sm,clocks_throttle_reasons.active"
NVIDIA = {0x08: "hardware slowdown", 0x20: "thermal slowdown", 0x40: "thermal slowdown", 0x80: "power brake"}
WHOLE = "VDD_IN"  # the channel of an INA3221 that a whole Jetson module draws from


@dataclass(frozen=True)
class Conditions:
    """What was read while files were timed.

    Attributes:
        celsius: the highest temperature by thermal zone, in °C; "nvidia" is a GPU's.
        mhz: the lowest and the highest clock, in MHz: of the fastest CPU at each sample ("cpu"), and of GPUs by name.
        problems: why the run is not valid: a clock that dropped, throttling, a zone at its limit; empty if it is.
        missing: what this machine does not let us read: "temperature", "clock", "throttling", "energy".
    """

    celsius: dict[str, float] = field(default_factory=dict)
    mhz: dict[str, tuple[float, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """What was read, in words, a line each; what is wrong comes last."""
        hottest = ", ".join(f"{zone} {value:.0f} °C" for zone, value in self.celsius.items())
        clocks = ", ".join(f"{name} {low:.0f} to {high:.0f} MHz" for name, (low, high) in self.mhz.items())
        texts = hottest and f"highest temperature: {hottest}", clocks and f"clocks: {clocks}"
        missing = [f"not readable on this machine: {', '.join(self.missing)}"] if self.missing else []
        return [*filter(None, texts), *missing, *(f"this run is not valid: {problem}" for problem in self.problems)]


class Sensors:
    """Reads a device's counters between the runs of ``gtp_runtime.latency.in_turn``, outside the timed parts.

    Args:
        count: number of files that are timed in turn.
        sysfs: where sysfs is mounted.
        every: seconds between two samples of temperatures and clocks; energy is read at each run.
        gpu: reads a GPU's state as ``nvidia_state`` does.
    """

    def __init__(
        self,
        count: int,
        sysfs: Path = SYSFS,
        every: float = EVERY,
        gpu: "Callable[[], list[float]] | None" = None,
    ) -> None:
        self._sysfs, self._every, self._gpu = sysfs, every, gpu or nvidia_state
        self._zones = dict(_zones(sysfs))
        self._energy, self._power = _energy_counters(sysfs), _power_channels(sysfs)
        self._joules: list[float] = [0.0] * count
        self._celsius: dict[str, float] = {}
        self._mhz: dict[str, tuple[float, float]] = {}
        self._problems: dict[str, None] = {}
        self._next = 0.0
        self._before = self._counted()
        self._throttled = _throttle_count(sysfs)
        self._read_gpu()

    def before(self) -> None:
        """Read what a run begins with."""
        if time.monotonic() >= self._next:
            self._sample()
            self._next = time.monotonic() + self._every
        self._before = self._counted()

    def after(self, index: int, seconds: float) -> None:
        """Add the energy of a run, in its time, to that of a file."""
        if self._energy:
            counters = zip(self._energy, self._before, self._counted(), strict=True)
            self._joules[index] += sum(_spent(*counter) for counter in counters)
        elif self._power:
            self._joules[index] += seconds * sum(_watts(*channel) for channel in self._power)

    def joules(self) -> list[float | None]:
        """Return the energy of each file in joules, of all its runs; None where no counter can be read."""
        return [value if self._energy or self._power else None for value in self._joules]

    def conditions(self) -> Conditions:
        """Read what a measurement ends with, and return what was read of all of it."""
        self._sample()
        self._read_gpu()
        throttled = _throttle_count(self._sysfs)
        if throttled is not None and self._throttled is not None and throttled > self._throttled:
            self._problems[f"the CPU was throttled {throttled - self._throttled} times because of heat"] = None
        for name, (low, high) in self._mhz.items():
            if low < LOWEST_CLOCK * high:
                self._problems[f"the clock of {name} dropped from {high:.0f} to {low:.0f} MHz"] = None
        readable = {
            "temperature": bool(self._celsius),
            "clock": bool(self._mhz),
            "throttling": throttled is not None or _pi_state(self._sysfs) is not None or "nvidia" in self._celsius,
            "energy": bool(self._energy or self._power),
        }
        missing = [name for name, is_read in readable.items() if not is_read]
        return Conditions(self._celsius, self._mhz, list(self._problems), missing)

    def _counted(self) -> list[float]:
        return [_number(counter) or 0.0 for counter in self._energy]

    def _sample(self) -> None:
        for zone, name in self._zones.items():
            if (value := _number(zone / "temp")) is not None:
                self._heat(name, value / 1e3, _limit(zone))
        for name, clock in _clocks(self._sysfs):
            self._clock(name, clock)
        for bit, what in PI.items():
            if (_pi_state(self._sysfs) or 0) & bit:
                self._problems[f"the board reports {what}"] = None

    def _read_gpu(self) -> None:
        state = self._gpu()
        if state:
            celsius, clock, _, reasons = state
            self._heat("nvidia", celsius, None)
            self._clock("nvidia", clock)
            for bit, what in NVIDIA.items():
                if int(reasons) & bit:
                    self._problems[f"the GPU reports {what}"] = None

    def _heat(self, name: str, celsius: float, limit: float | None) -> None:
        self._celsius[name] = max(celsius, self._celsius.get(name, celsius))
        if limit is not None and celsius >= limit:
            self._problems[f"{name} reached its limit of {limit:.0f} °C"] = None

    def _clock(self, name: str, mhz: float) -> None:
        low, high = self._mhz.get(name, (mhz, mhz))
        self._mhz[name] = (min(low, mhz), max(high, mhz))


def nvidia_state() -> list[float]:
    """Return the first GPU's °C, clock and highest clock in MHz, and the bits of why it is slowed down; [] for none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={NVIDIA_QUERY}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, stdin=subprocess.DEVNULL)
        celsius, clock, highest, reasons = ran.stdout.strip().split(", ")
        return [float(celsius), float(clock), float(highest), float(int(reasons, 16))]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _zones(sysfs: Path) -> Iterator[tuple[Path, str]]:
    """Yield each thermal zone and its name, which has its number where two have the same type."""
    zones = [(zone, _text(zone / "type")) for zone in sorted(sysfs.glob("class/thermal/thermal_zone*"))]
    types = [name for _, name in zones]
    for zone, name in zones:
        yield zone, name if types.count(name) == 1 else f"{name} {zone.name.removeprefix('thermal_zone')}"


def _limit(zone: Path) -> float | None:
    """Return the lowest temperature in °C at which Linux acts on a zone; None where it says none."""
    trips = (trip for trip in zone.glob("trip_point_*_type") if _text(trip) in TRIPS)
    values = (_number(trip.with_name(trip.name.replace("_type", "_temp"))) for trip in trips)
    return min((value / 1e3 for value in values if value and value > 0), default=None)


def _clocks(sysfs: Path) -> Iterator[tuple[str, float]]:
    """Yield clocks in MHz: of the fastest CPU, which is one that works, and of GPUs in devfreq."""
    cpus = [_number(file) for file in sysfs.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if known := [value for value in cpus if value]:
        yield "cpu", max(known) / 1e3
    for device in sorted(sysfs.glob("class/devfreq/*")):
        clock = _number(device / "cur_freq")
        if clock and re.search(r"gpu|ga10b|gv11b|gp10b|mali", device.name):
            yield device.name, clock / 1e6


def _throttle_count(sysfs: Path) -> int | None:
    """Return how often x86 CPUs were slowed down because of heat since the start; None where it is not counted."""
    files = sysfs.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [value for value in map(_number, files) if value is not None]
    return int(sum(counts)) if counts else None


def _pi_state(sysfs: Path) -> int | None:
    try:
        return int(_text(sysfs / "devices/platform/soc/soc:firmware/get_throttled"), 16)
    except ValueError:
        return None


def _energy_counters(sysfs: Path) -> list[Path]:
    """Return the RAPL counters, in microjoules, of the processors that can be read; as a rule root alone may."""
    packages = (zone for zone in sysfs.glob("class/powercap/*-rapl:*") if _text(zone / "name").startswith("package"))
    return [zone / "energy_uj" for zone in sorted(packages) if _number(zone / "energy_uj") is not None]


def _spent(counter: Path, before: float, after: float) -> float:
    """Return the joules between two values of a counter in microjoules, which begins again at its range."""
    wrapped = _number(counter.with_name("max_energy_range_uj")) if after < before else None
    return (after - before + (wrapped or 0.0)) / 1e6


def _power_channels(sysfs: Path) -> list[tuple[Path, Path]]:
    """Return voltage and current, in mV and mA, of an INA3221's channels: of the whole module where one has it."""
    monitors = (monitor for monitor in sysfs.glob("class/hwmon/hwmon*") if _text(monitor / "name") == "ina3221")
    labels = {label: _text(label) for monitor in sorted(monitors) for label in sorted(monitor.glob("in*_label"))}
    named = {label: text for label, text in labels.items() if text.startswith(("VDD_", "VIN_"))}
    chosen = [label for label, text in named.items() if text == WHOLE] or list(named)
    channels = [(label, label.name.removeprefix("in").removesuffix("_label")) for label in chosen]
    pairs = [(label.with_name(f"in{n}_input"), label.with_name(f"curr{n}_input")) for label, n in channels]
    return [pair for pair in pairs if None not in map(_number, pair)]


def _watts(voltage: Path, current: Path) -> float:
    return (_number(voltage) or 0.0) * (_number(current) or 0.0) / 1e6


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:  # a zone that is switched off cannot be read
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
