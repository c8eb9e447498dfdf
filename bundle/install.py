"""Installs the wheels of a bundle with the Python that runs it: python3 BUNDLE.pyz [OPTIONS OF pip install].

No index and no network are used. A Python that is too old for the wheels can still run this file, and is told so.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import runpy
import sys
import tempfile
import zipfile
from pathlib import Path

FAILED, MISSING = 1, 4


def unfit(target: dict[str, str]) -> str:
    """Return why this machine is not what the bundle is for; "" if it is."""
    python, machine = f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()
    if python != target["python"]:
        return f"it is for Python {target['python']}, this is {python}: make bundle DEVICE_PYTHON={python}"
    if machine != target["machine"]:
        return f"it is for {target['machine']}, this is {machine}: make bundle PLATFORM={machine}"
    name, _, glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    if name != "glibc":
        return "it needs glibc, which this system does not have"
    if _numbers(glibc) < _numbers(target["glibc"]):
        tag = f"manylinux_{glibc.replace('.', '_')}_{machine}"
        return f"it needs glibc {target['glibc']}, this is {glibc}: make bundle PLATFORM={tag}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def unpack(archive: zipfile.ZipFile, hashes: dict[str, str], folder: Path) -> str:
    """Write the wheels to a folder; return the name of one that is damaged, or ""."""
    for name, expected in hashes.items():
        try:
            content = archive.read(f"wheels/{name}")
        except (zipfile.BadZipFile, KeyError):
            return name
        if hashlib.sha256(content).hexdigest() != expected:
            return name
        (folder / name).write_bytes(content)
    return ""


def pip(folder: Path, target: dict, options: list[str]) -> int:
    """Run the bundle's own pip in this process, because a device may have none; return its exit code."""
    (own,) = folder.glob("pip-*.whl")
    sys.path.insert(0, str(own))
    switches = [
        "--isolated",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--no-index",
        "--find-links",
        str(folder),
    ]
    sys.argv = ["pip", "install", *switches, *options, target["requirement"]]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def main() -> int:
    """Install; return the exit code."""
    bundle, options = Path(__file__).parent, sys.argv[1:]
    with zipfile.ZipFile(bundle) as archive, tempfile.TemporaryDirectory() as folder:
        target = json.loads(archive.read("bundle.json").decode())
        problem = unfit(target)
        if problem:
            print(f"error: {bundle.name} does not fit: {problem}", file=sys.stderr)
            return MISSING
        damaged = unpack(archive, target["wheels"], Path(folder))
        if damaged:
            print(f"error: {bundle.name} is damaged ({damaged}): copy it again", file=sys.stderr)
            return FAILED
        code = pip(Path(folder), target, options)
    if not code:
        print(f"installed {target['requirement']}")
        print(f"next: {sys.executable} -m gtp_runtime validate DIR")
    return code


if __name__ == "__main__":
    sys.exit(main())
