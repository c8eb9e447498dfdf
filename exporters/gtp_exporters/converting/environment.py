"""An environment of its own for a converter that needs other versions of onnx or torch than ours.

The first use makes it in the user's cache, by ``venv`` and ``pip`` with pinned versions: whole, or not at all.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.errors import ConversionError, MissingPackageError
from gtp_runtime.machine import user_cache
from gtp_runtime.messages import Progress, one_line

LIMIT = 1800  # seconds that a program may take


@dataclass(frozen=True)
class Environment:
    """An environment that a converter runs in.

    Attributes:
        name: of the converter, as pip knows it.
        version: its.
        alone: pinned requirements that are installed without theirs: onnx2tf's would install pytest, and it asks for
            Python 3.12, though its code runs on 3.11.
        packages: pinned requirements of what these import.
        size: on the disk, for people: "640 MB".
    """

    name: str
    version: str
    alone: tuple[str, ...]
    packages: tuple[str, ...]
    size: str

    @property
    def place(self) -> Path:
        """Its folder: another one for other packages or another Python."""
        content = repr((self.alone, self.packages, sys.version_info[:2]))
        return (
            user_cache()
            / "converters"
            / f"{self.name}-{self.version}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        )

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.place / "bin" / "python"

    @property
    def is_there(self) -> bool:
        """Whether it was made."""
        return self.python.exists()

    def ready(self, progress: Progress) -> Path:
        """Return its interpreter; make the environment first where it is not there.

        Raises:
            MissingPackageError: it cannot be made: no network, no space, no ``venv``.
        """
        if not self.is_there:
            progress(f"installing {self.name} {self.version} into {self.place}, once ({self.size})")
            self._make()
        return self.python

    def _make(self) -> None:
        """Make it beside its place and rename it: a Python of its environment finds its packages by its own path."""
        place = self.place.with_name(f"{self.place.name}.{os.getpid()}")
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            run([sys.executable, "-m", "venv", str(place)])
            run([*pip, "--no-deps", "--ignore-requires-python", *self.alone])
            run([*pip, *self.packages])
            place.rename(self.place)
        except (OSError, ConversionError) as error:
            if self.is_there:  # another process was faster
                return
            raise MissingPackageError(
                f"{self.name} {self.version} cannot be installed into {self.place}: {one_line(error)}; it needs the "
                f"package index once and {self.size} on the disk"
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)


def run_ours(module: str, *arguments: str) -> None:
    """Run a module of ours as a program, in this Python and with its path.

    Raises:
        ConversionError: as ``run``.
    """
    path = os.pathsep.join(filter(None, sys.path))
    run([sys.executable, "-m", module, *arguments], settings={"PYTHONPATH": path})


def run(command: list[str], directory: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
    """Run a program; nothing of this process's Python path reaches it.

    Args:
        command: the program and its arguments.
        directory: where it runs.
        settings: environment variables that it has beside those of this process.

    Raises:
        ConversionError: it fails: its last line says why.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**ours, **(settings or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"{Path(command[0]).name} took longer than {LIMIT} s and was stopped") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it gives no reason").splitlines()
        raise ConversionError(one_line(lines[-1]))
