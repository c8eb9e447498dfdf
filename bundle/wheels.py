"""Wheels for another platform and Python than this one, with all that they need."""

import re
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OLDEST_GLIBC = 5  # manylinux_2_5 is the oldest tag
DEFAULT_GLIBC = 28  # of Debian 10, Ubuntu 20.04 and all later ones
LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


class TargetError(Exception):
    """A platform or Python for which no bundle can be made."""


def target_of(tag: str, python: str) -> dict[str, str]:
    """Return what a bundle is for: "platform" (a manylinux tag), "machine", "glibc" and "python".

    Args:
        tag: manylinux_2_GLIBC_MACHINE, or the machine alone.
        python: 3.MINOR.

    Raises:
        TargetError: neither.
    """
    match = re.fullmatch(r"(?:manylinux_2_(\d+)_)?(aarch64|x86_64)", tag)
    if not match:
        raise TargetError(f"PLATFORM={tag}: give aarch64, x86_64, or a tag such as manylinux_2_28_aarch64")
    if not re.fullmatch(r"3\.\d+", python) or int(python[2:]) < 10:
        raise TargetError(f"DEVICE_PYTHON={python}: give 3.10 or newer")
    glibc, machine = int(match[1] or DEFAULT_GLIBC), match[2]
    platform = f"manylinux_2_{glibc}_{machine}"
    return {"platform": platform, "machine": machine, "glibc": f"2.{glibc}", "python": python}


def download(name: str, wheel: Path, target: dict[str, str], constraints: "list[Path]", folder: Path) -> None:
    """Download the wheels that a wheel with extras needs, and pip's own, to ``folder``.

    pip decides by the markers of the Python that runs it whether one package needs another. So what the target's
    markers ask for besides is added until nothing is missing.

    Raises:
        TargetError: a package has no wheel for the target, or the index cannot be reached.
    """
    wanted = [f"{name} @ {wheel.resolve().as_uri()}", "pip"]
    while True:
        _pip(wanted, target, constraints, folder)
        missing = _missing(Requirement(name), target, folder)
        if not missing:
            return
        wanted += missing


def _pip(wanted: "list[str]", target: dict[str, str], constraints: "list[Path]", folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--python-version", target["python"], "--implementation", "cp"]
    command += [f"--platform={tag}" for tag in _tags(target)] + [f"--constraint={path}" for path in constraints]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()[-1:]
        where = f"Python {target['python']} on {target['platform']}"
        raise TargetError(f"no wheels for {where}: {' '.join(said).replace('ERROR: ', '')}")


def _tags(target: dict[str, str]) -> "list[str]":
    """Return the tags of all wheels that run there: those of older glibc as well."""
    machine, newest = target["machine"], int(target["glibc"][2:])
    tags = [f"manylinux_2_{glibc}_{machine}" for glibc in range(newest, OLDEST_GLIBC - 1, -1)]
    return tags + [f"{name}_{machine}" for glibc, name in LEGACY.items() if glibc <= newest]


def _missing(root: Requirement, target: dict[str, str], folder: Path) -> "list[str]":
    """Return what the wheels need on the target and is not there."""
    present = {canonicalize_name(path.name.split("-")[0]): _needs(path) for path in folder.glob("*.whl")}
    missing, waiting, seen = [], [root], set()
    while waiting:
        current = waiting.pop()
        name = canonicalize_name(current.name)
        if name not in present:
            current.marker = None
            missing.append(str(current))
        elif (name, *sorted(current.extras)) not in seen:
            seen.add((name, *sorted(current.extras)))
            waiting += [need for need in present[name] if _counts(need, current.extras, target)]
    return missing


def _needs(wheel: Path) -> "list[Requirement]":
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        fields = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in fields.get_all("Requires-Dist") or []]


def _counts(need: Requirement, extras: "set[str]", target: dict[str, str]) -> bool:
    """Whether a requirement holds on the target, with one of these extras or with none."""
    if need.marker is None:
        return True
    known = {"python_version": target["python"], "python_full_version": f"{target['python']}.0"}
    known |= {"platform_machine": target["machine"], "sys_platform": "linux", "platform_system": "Linux"}
    return any(need.marker.evaluate({**known, "extra": extra}) for extra in ("", *extras))
