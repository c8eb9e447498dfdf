"""``make bundle``: what a device without a network needs, in one file that installs itself.

The file is a zip that Python runs (``python FILE.pyz``): ``install.py`` as its ``__main__``, ``bundle.json``, and
wheels of the runtime, of all that it needs, and of pip, for one platform and Python.
"""

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from wheels import TargetError, download, target_of

HERE = Path(__file__).parent
RUNTIME = HERE.parent / "runtime"
PINNED, PINNED_FROM = HERE.parent / "constraints.txt", (3, 11)  # the Python that its versions need


def build_runtime(place: Path) -> Path:
    """Build the wheel of gtp-export-runtime from a copy of its sources, and return it.

    Raises:
        TargetError: it cannot be built.
    """
    sources = Path(shutil.copytree(RUNTIME, place / "sources", ignore=shutil.ignore_patterns("build", "*.egg-info")))
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(place), str(sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"cannot build the runtime: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    (found,) = place.glob("gtp_export_runtime-*.whl")
    return found


def pack(wheels: Path, requirement: str, target: dict[str, str], output: Path) -> None:
    """Write the file. ``target`` says what it is for: "python", "machine", "glibc" and "platform"."""
    paths = sorted(wheels.glob("*.whl"))
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    output.parent.mkdir(parents=True, exist_ok=True)
    written = output.with_name(f".{output.name}.part")
    with zipfile.ZipFile(written, "w") as archive:
        archive.write(HERE / "install.py", "__main__.py")
        archive.writestr("bundle.json", json.dumps({"requirement": requirement, "wheels": hashes, **target}, indent=1))
        for path in paths:
            archive.write(path, f"wheels/{path.name}")
    written.replace(output)


def make(
    platform_tag: str, python: str, extras: str, constraints: "list[Path]", folder: Path, wheel: Path | None = None
) -> Path:
    """Make a bundle and return its path.

    Raises:
        TargetError: a platform or Python that is none, or one for which there are no wheels.
    """
    target = target_of(platform_tag, python)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        runtime = wheel or build_runtime(place)
        version = runtime.name.split("-")[1]
        name = f"gtp-export-runtime{f'[{extras}]' if extras else ''}"
        wheels = place / "wheels"
        download(name, runtime, target, constraints, wheels)
        output = folder / f"gtp-export-runtime-{version}-py{python}-{target['platform']}.pyz"
        pack(wheels, f"{name}=={version}", target, output)
    return output


def pins(python: str) -> "list[Path]":
    """Return the project's own constraints; for an older Python none, so that pip takes the newest that fit."""
    return [PINNED] if tuple(map(int, python.split("."))) >= PINNED_FROM else []


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = f"manylinux_2_28_{platform.machine()}"
    parser.add_argument("--platform", default=here, help="a manylinux tag, or a machine: aarch64, x86_64 (glibc 2.28)")
    parser.add_argument("--python", default=f"3.{sys.version_info.minor}", help="Python of the device: 3.10")
    parser.add_argument("--extras", default="onnxruntime", help="extras of gtp-export-runtime, with commas")
    parser.add_argument(
        "--constraints", type=Path, action="append", default=[], help="pip's (default: constraints.txt)"
    )
    parser.add_argument("--outdir", type=Path, default=Path("dist"))
    given = parser.parse_args()
    try:
        made = make(given.platform, given.python, given.extras, given.constraints or pins(given.python), given.outdir)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {made} ({made.stat().st_size / 1e6:.1f} MB)")
    print(f"next: copy it to the device, and run there: python3 {made.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
