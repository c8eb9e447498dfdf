"""``make test-arm64``: the aarch64 bundle, installed and run on an emulated Cortex-A72 (qemu-user).

The emulated system is made of Debian's arm64 packages, unpacked into a folder; this machine's own packages stay as they
are. Where a tool or an index is missing, the reason is printed and nothing fails.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bundling import PINNED, make
from wheels import TargetError

QEMU, CPU = "qemu-aarch64-static", "cortex-a72"
PYTHON = "3.11"  # of Debian 12
PACKAGES = (
    "python3.11 python3.11-minimal libpython3.11-stdlib libpython3.11-minimal libc6 libstdc++6 libgcc-s1 zlib1g "
    "libssl3 libffi8 libexpat1 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1"
).split()
VERSIONS = {
    "onnxruntime": "1.22.1",  # 1.32 crashes in the emulation as it is imported
    "ai-edge-litert": "2.1.2",  # 2.3.0 as it makes an interpreter
}
PRESETS = ("paper", "measured")
DIGITS = Path(__file__).parents[1] / "models" / "gtp_models" / "digits" / "images"
GTP_EXPORT = (sys.executable, "-m", "gtp_export")
LITERT_PRECISIONS = ("fp32", "int8_weights")
IMAGES = 4  # of each class: emulation is slow


class SkippedError(Exception):
    """What is missing here."""


class FailedError(Exception):
    """What does not work."""


@dataclass(frozen=True)
class Emulator:
    """Runs the Python of an unpacked arm64 system.

    Attributes:
        root: the system.
        site: where the bundle is installed.
    """

    root: Path
    site: Path

    def run(self, *arguments: object, timeout: int = 600) -> str:
        """Run Python with these arguments; show what it prints, and return that.

        Raises:
            FailedError: it fails, or takes longer than ``timeout`` seconds.
        """
        command = [QEMU, "-cpu", CPU, "-L", self.root, "-E", f"PYTHONPATH={self.site}", "-E", "LC_ALL=C.UTF-8"]
        command += [self.root / "usr" / "bin" / f"python{PYTHON}", *arguments]
        print("$ python", *arguments, flush=True)
        return _run(command, timeout)


def _run(command: "list[object]", timeout: int = 600) -> str:
    """Run a program; show what it prints, and return that. Raises ``FailedError``."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": timeout}
    try:
        done = subprocess.run(list(map(str, command)), check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{command[-1]} took longer than {timeout} s") from error
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise FailedError(f"exit code {done.returncode} of {' '.join(map(str, command))}")
    return done.stdout


def unpack_system(place: Path) -> Path:
    """Download and unpack the arm64 system, and return its root; an earlier one is used again.

    Raises:
        SkippedError: a tool is missing, or the packages cannot be downloaded.
    """
    for tool, package in ((QEMU, "qemu-user-static"), ("apt-get", "apt"), ("dpkg", "dpkg")):
        if not shutil.which(tool):
            raise SkippedError(f"{tool} is not installed (apt-get install {package})")
    root = place / "root"
    if root.exists():
        return root
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        _apt(Path(temporary), "update")
        _apt(Path(temporary), "download", *PACKAGES)
        for file in Path(temporary).glob("*.deb"):
            subprocess.run(["dpkg", "-x", file, Path(temporary) / "root"], check=True)
        (Path(temporary) / "root").rename(root)
    return root


def _apt(place: Path, *arguments: str) -> None:
    """Run apt-get for arm64 with lists of its own."""
    for name in ("lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    settings = ("APT::Architecture=arm64", "APT::Architectures=arm64", "Debug::NoLocking=1", "APT::Sandbox::User=root")
    settings += (f"Dir::State::Lists={place / 'lists'}", f"Dir::Cache={place / 'cache'}", "Acquire::Languages=none")
    settings += ("Acquire::Retries=1", "Acquire::http::Timeout=20", "Acquire::https::Timeout=20")
    command = ["apt-get", "-q", *(f"-o{setting}" for setting in settings), *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        raise SkippedError(f"Debian 12's arm64 packages cannot be downloaded: {said}")


def make_bundle(place: Path, extras: str) -> Path:
    """Make the aarch64 bundle with these runtimes.

    Raises:
        SkippedError: the wheels cannot be downloaded.
    """
    pins = [line for line in PINNED.read_text("utf-8").splitlines() if line.partition("==")[0] not in VERSIONS]
    pins += [f"{name}=={version}" for name, version in VERSIONS.items()]
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join([*pins, ""]), encoding="utf-8")
    try:
        return make("aarch64", PYTHON, extras, [constraints], place)
    except TargetError as error:
        raise SkippedError(str(error)) from error


def export(place: Path, preset: str) -> Path:
    """Export digits in fp32 and int8, with a reference of a few images."""
    images = place / "images"
    for folder in DIGITS.iterdir():
        (images / folder.name).mkdir(parents=True, exist_ok=True)
        for image in sorted(folder.iterdir())[:IMAGES]:
            shutil.copy(image, images / folder.name)
    directory = place / preset
    options = ("--no-check", "--no-report", "--quiet")
    _run([*GTP_EXPORT, "export", "digits", "--preset", preset, "--data", images, "-o", directory, *options])
    _run([*GTP_EXPORT, "quantize", directory, "--target", "onnxruntime", "--data", DIGITS, "--quiet"])
    return directory


def convert(directory: Path) -> None:
    """Make LiteRT files of an export; it was not checked here, so the emulated device alone proves them."""
    for precision in LITERT_PRECISIONS:
        _run([*GTP_EXPORT, "convert", directory, "--to", "litert", "--precision", precision, "--no-check", "--quiet"])


def check_litert(emulator: Emulator, directory: Path) -> None:
    """Prove LiteRT files, reduced and dense, on the emulated device. Raises ``FailedError``."""
    for file in sorted(directory.glob("*.tflite")):
        emulator.run("-m", "gtp_runtime", "validate", file, "--threads", 1)


def check(emulator: Emulator, directories: "list[Path]") -> None:
    """Predict, and prove parity on the emulated device; then fall back from an engine that it cannot run.

    Raises:
        FailedError: one of these fails.
    """
    one_thread, first = ("--threads", 1), directories[0]
    emulator.run("-m", "gtp_runtime", "predict", first, DIGITS / "7" / "000.png", "--topk", 1, *one_thread)
    for directory in directories:
        for precision in ("fp32", "int8"):
            emulator.run("-m", "gtp_runtime", "validate", directory, "--precision", precision, *one_thread)
    _run([*GTP_EXPORT, "build-engine", first, "--flavor", "rtx", "--target", "sm86", "--quiet"])
    said = emulator.run("-m", "gtp_runtime", "selftest", first, "--verbose")
    if "not model.engine with tensorrt" not in said:
        raise FailedError("the log does not say why the engine does not run")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("build/arm64"), help="folder for all that is made")
    parser.add_argument("--preset", choices=PRESETS, help="one preset alone, which takes half of the time")
    parser.add_argument("--litert", action="store_true", help="prove LiteRT files there as well")
    options = parser.parse_args()
    place = options.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    try:
        root = unpack_system(place)
        bundle = make_bundle(place, "onnxruntime,litert" if options.litert else "onnxruntime")
    except SkippedError as why:
        print(f"skipped: {why}")
        return 0
    emulator = Emulator(root, place / "site")
    shutil.rmtree(emulator.site, ignore_errors=True)
    try:
        emulator.run(bundle, "--quiet", "--no-compile", "--root-user-action=ignore", "--target", emulator.site)
        presets = [options.preset] if options.preset else PRESETS
        directories = [export(place, preset) for preset in presets]
        check(emulator, directories)
        for directory in directories if options.litert else []:
            convert(directory)
            check_litert(emulator, directory)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    litert = f" and LiteRT {VERSIONS['ai-edge-litert']}" if options.litert else ""
    print(f"ok on an emulated {CPU} with ONNX Runtime {VERSIONS['onnxruntime']}{litert}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
