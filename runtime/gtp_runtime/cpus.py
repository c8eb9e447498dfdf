"""How many CPUs this process may use: those of the machine, less what affinity and cgroup quotas take away.

Sources: sched_getaffinity(2); Linux' cgroup-v2 (``cpu.max``) and sched-bwc (``cpu.cfs_quota_us``) documentation.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")  # lines of hierarchy:controllers:path

LISTED = Path("/proc/cpuinfo")
X86 = "flags"  # in it: what an x86 CPU can do; Arm writes "Features"
VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
ADDING_IN_16_BITS = ("onnxruntime", "openvino")  # backends whose int8 kernels do, on x86 CPUs without VNNI
NAMES = ("model name", "CPU implementer", "CPU part")  # in it: x86 has the first, Arm the others


def machine_cpus() -> int:
    """Return how many CPUs the machine has."""
    return os.cpu_count() or 1


def usable_cpus(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Return how many CPUs this process may use, at least 1; a part of a CPU counts as one.

    Args:
        groups: where cgroups are mounted.
        own: the file that says which of them this process is in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cpus()
    return max(1, min([allowed, *map(math.ceil, _quotas(groups, own))]))


def processor(listed: Path | None = None) -> str:
    """Return the kinds of the CPUs in the order in which they are listed; "" where that is not known."""
    lines = (line.partition(":") for line in _read(listed or LISTED).splitlines())
    return ", ".join(dict.fromkeys(value.strip() for name, _, value in lines if name.strip() in NAMES))


def saturates_int8(listed: Path | None = None) -> bool:
    """Return whether this x86 CPU has no VNNI: products of uint8 and int8 are added in 16 bits, which saturate.

    False where that is not known: on other processors and systems.

    Args:
        listed: the file that lists the CPUs (default: /proc/cpuinfo).

    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VPMADDUBSW and VPDPBUSD.
    """
    lines = (line.partition(":") for line in _read(listed or LISTED).splitlines())
    flags = next((set(value.split()) for name, _, value in lines if name.strip() == X86), set())
    return bool(flags) and not flags & VNNI


def threads_of(threads: int) -> int:
    """Return the threads to ask an engine for.

    Args:
        threads: as the user gives it; 0 means all that this process may use. It stays 0 where that is the whole
            machine: engines then choose better than by the number of CPUs alone.
    """
    usable = usable_cpus()
    return usable if threads == 0 and usable < machine_cpus() else int(threads)


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the CPUs that each cgroup of this process allows, in both versions; one without a limit yields nothing."""
    for line in _read(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        is_v2 = controllers == ""
        if not is_v2 and "cpu" not in controllers.split(","):
            continue
        root = groups if is_v2 else groups / controllers
        place = root / path.lstrip("/")
        for group in (place, *place.parents):  # a limit of a parent holds too; a container may see only the root
            if group.is_relative_to(root):
                yield from _limit(_read(group / "cpu.max").split() if is_v2 else _version_1(group))


def _version_1(group: Path) -> list[str]:
    return [_read(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]


def _limit(words: list[str]) -> Iterator[float]:
    """Yield quota over period in microseconds; "max" and -1 are no limit."""
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
