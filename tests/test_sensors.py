"""What a device does while it is timed is read from sysfs: here from a tree of our own."""

import time
from pathlib import Path
from typing import Any

import pytest
from artifacts import Command
from test_cli import document

from gtp_runtime import latency, sensors
from gtp_runtime.sensors import Sensors

CPU = "devices/system/cpu/cpu0"
FREQUENCY = f"{CPU}/cpufreq/scaling_cur_freq"
ZONE = "class/thermal/thermal_zone0"
RAPL = "class/powercap/intel-rapl:0"
INA = "class/hwmon/hwmon3"
PI = "devices/platform/soc/soc:firmware/get_throttled"


def tree(root: Path, **files: Any) -> Path:
    return write(root, {ZONE + "/type": "cpu-thermal", ZONE + "/temp": 45000, FREQUENCY: 2000000, **files})


def write(root: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{value}\n", "utf-8")
    return root


def measure(root: Path, run: Any = lambda: None, count: int = 1, gpu: Any = lambda: []) -> Sensors:
    reader = Sensors(count, root, 0, gpu)
    latency.in_turn([run] * count, 0, rounds=2, sensors=reader)
    return reader


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    reader = measure(tmp_path)
    conditions = reader.conditions()
    assert conditions.missing == ["temperature", "clock", "throttling", "energy"]
    assert (conditions.celsius, conditions.mhz, conditions.problems) == ({}, {}, [])
    assert reader.joules() == [None]
    assert len(conditions.lines) == 1, "said once"


def test_temperature_and_clock(tmp_path: Path) -> None:
    conditions = measure(tree(tmp_path)).conditions()
    assert conditions.celsius == {"cpu-thermal": 45.0}
    assert conditions.mhz == {"cpu": (2000.0, 2000.0)}
    assert (conditions.problems, conditions.missing) == ([], ["throttling", "energy"])


def test_zones_of_one_type_and_one_that_is_off(tmp_path: Path) -> None:
    second, off = "class/thermal/thermal_zone1", "class/thermal/thermal_zone2"
    root = tree(tmp_path, **{f"{second}/type": "cpu-thermal", f"{second}/temp": 50000, f"{off}/type": "gpu"})
    assert measure(root).conditions().celsius == {"cpu-thermal 0": 45.0, "cpu-thermal 1": 50.0}


def changing(root: Path, files: dict[str, Any]) -> Any:
    return lambda: write(root, files)


@pytest.mark.parametrize(
    ("files", "change", "word"),
    [
        ({}, {FREQUENCY: 1600000}, "1600 MHz"),
        ({f"{ZONE}/trip_point_0_type": "passive", f"{ZONE}/trip_point_0_temp": 85000}, {f"{ZONE}/temp": 86000}, "85"),
        ({PI: "0"}, {PI: "50005"}, "under-voltage"),
    ],
    ids=["clock", "hot", "board"],
)
def test_a_run_that_is_not_valid(tmp_path: Path, files: dict[str, Any], change: dict[str, Any], word: str) -> None:
    root = tree(tmp_path, **files)
    assert not measure(root).conditions().problems
    reader = Sensors(1, root, 0, lambda: [])
    reader.before()
    write(root, change)
    conditions = reader.conditions()
    assert any(word in problem for problem in conditions.problems)
    assert any("not valid" in line for line in conditions.lines)


def test_throttling_is_that_of_the_run(tmp_path: Path) -> None:
    count = f"{CPU}/thermal_throttle/package_throttle_count"
    root = tree(tmp_path, **{count: 7})
    assert not measure(root).conditions().problems, "earlier ones do not count"
    reader = Sensors(1, root, 0, lambda: [])
    write(root, {count: 9})
    conditions = reader.conditions()
    assert any("2 times" in problem for problem in conditions.problems)
    assert "throttling" not in conditions.missing


def test_a_small_change_of_the_clock_is_none(tmp_path: Path) -> None:
    root = tree(tmp_path)
    reader = Sensors(1, root, 0, lambda: [])
    reader.before()
    write(root, {FREQUENCY: 1800000})
    assert not reader.conditions().problems


def test_joules_of_rapl_belong_to_the_file_that_ran(tmp_path: Path) -> None:
    rapl = {f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": 0, f"{RAPL}/max_energy_range_uj": 10_000_000}
    root = tree(tmp_path, **rapl)
    reader, spent = Sensors(2, root, 0, lambda: []), iter([3_000_000, 5_000_000, 9_000_000, 1_000_000])
    for index in (0, 1, 0, 1):
        reader.before()
        write(root, {f"{RAPL}/energy_uj": next(spent)})
        reader.after(index, 1.0)
    assert reader.joules() == pytest.approx([3 + 4, 2 + 2]), "the counter began again in the last"


def test_joules_of_a_jetson(tmp_path: Path) -> None:
    channels = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 2000}
    parts = {"in2_label": "VDD_CPU_GPU_CV", "in2_input": 5000, "curr2_input": 500, "in7_label": "sum of shunt voltages"}
    root = tree(tmp_path, **{f"{INA}/{name}": value for name, value in {**channels, **parts}.items()})
    reader = Sensors(1, root, 0, lambda: [])
    reader.before()
    reader.after(0, 0.5)
    assert reader.joules() == [pytest.approx(5.0)], "10 W of the whole module for half a second"
    assert "energy" not in reader.conditions().missing


def test_clock_of_a_gpu_in_devfreq(tmp_path: Path) -> None:
    root = tree(tmp_path, **{"class/devfreq/17000000.ga10b/cur_freq": 918_000_000, "class/devfreq/emc/cur_freq": 1})
    assert measure(root).conditions().mhz["17000000.ga10b"] == (918.0, 918.0)


def test_a_gpu_that_slows_down(tmp_path: Path) -> None:
    conditions = measure(tmp_path, gpu=lambda: [88.0, 900.0, 1980.0, float(0x20)]).conditions()
    assert (conditions.celsius, conditions.mhz) == ({"nvidia": 88.0}, {"nvidia": (900.0, 900.0)})
    assert len(conditions.problems) == 1
    assert conditions.missing == ["energy"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("54, 1755, 1980, 0x0000000000000004", [54.0, 1755.0, 1980.0, 4.0]),
        ("54, [N/A], 1980, 0x0", []),
        ("No devices were found", []),
    ],
)
def test_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, state: list[float]) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sensors.shutil, "which", lambda name: str(program))
    assert sensors.nvidia_state() == state


def test_samples_are_not_taken_at_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, samples = Sensors(1, tree(tmp_path), 3600, lambda: []), []
    monkeypatch.setattr(reader, "_sample", lambda: samples.append(time.monotonic()))
    latency.in_turn([lambda: None], 0, rounds=5, sensors=reader)
    assert len(samples) == 1


def test_bench_keeps_it(command: Command, digits_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "sys", **{f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": 5})
    root = write(root, {PI: "4"})
    monkeypatch.setattr(latency, "Sensors", lambda count: Sensors(count, root, 0, lambda: []))
    ran = command("bench", digits_copy, "--seconds", "0", "--no-footprint")
    assert ran.code == 0 and "not valid" in ran.out + ran.error
    files = document(command("bench", digits_copy, "--seconds", "0", "--no-footprint", "--json"))["files"]
    assert [file["joules"] for file in files] == [0.0, 0.0]
    assert files[0]["conditions"]["celsius"] == {"cpu-thermal": 45.0}
    assert files[0]["conditions"]["problems"]
