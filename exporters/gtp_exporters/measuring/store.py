"""Keeps results as JSON lines in a folder that one process holds, so that a run that was killed resumes.

The first line is the key: what the results depend on. Every other one has a name and a value, and is on the disk before
the next is measured. A line that a kill cut off is removed. Nothing is unpickled.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from gtp_exporters.graph.describe import tool_versions
from gtp_exporters.measuring.result import Result
from gtp_models.recipes import Recipe
from gtp_runtime.atomic import held_work
from gtp_runtime.errors import ImageError, OutputError
from gtp_runtime.fleet.node import code_digests
from gtp_runtime.images.folders import ImageSet, image_names
from gtp_runtime.manifest import WORK_NAME, Manifest
from gtp_runtime.opening import open_regular
from gtp_runtime.transaction import tidied

FORMAT = "gtp-export results 1"
LARGEST = 1 << 28  # bytes


class Store:
    """Values by name, in a file.

    Args:
        path: of the file; its folder is held by this process.
        key: what the values depend on, as plain values.
        is_replaced: whether values under another key are dropped; otherwise they are an error.

    Attributes:
        is_resumed: whether the file was there, with the same key.

    Raises:
        OutputError: the file is none of ours, keeps values of another key, or cannot be used.
    """

    def __init__(self, path: Path, key: dict[str, Any], is_replaced: bool = False) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        self.is_resumed = False
        try:
            kept = self._read() if path.exists() else None
            other = [] if kept is None else [name for name in {**kept, **key} if kept.get(name) != key.get(name)]
            if other and not is_replaced:
                raise OutputError(
                    f"{path} keeps other results ({', '.join(other)} differ): choose another -o, or remove it"
                )
            self.is_resumed = kept is not None and not other
            if not self.is_resumed:
                self._values = {}
                path.unlink(missing_ok=True)
                self._append({"format": FORMAT, "key": key})
        except OSError as error:
            raise OutputError(f"cannot use {path}: {error.strerror or error}; choose another -o") from error

    @property
    def values(self) -> dict[str, Any]:
        """All values by name, in the order in which they were kept."""
        return dict(self._values)

    def keep(self, name: str, value: Any) -> None:
        """Keep a value under a name, as plain values."""
        self._values[name] = value
        try:
            self._append({"name": name, "value": value})
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; choose another -o") from error

    def results(self, name: str) -> list[Result] | None:
        """Return the results of a name; None if it has none.

        Raises:
            OutputError: they have another form.
        """
        if name not in self._values:
            return None
        try:
            return msgspec.convert(self._values[name], list[Result])
        except msgspec.ValidationError as error:
            raise OutputError(f"{self.path} keeps results of another form: choose another -o, or remove it") from error

    def keep_results(self, name: str, results: list[Result]) -> None:
        """Keep results under a name."""
        self.keep(name, [asdict(result) for result in results])

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> dict[str, Any] | None:
        """Read the file, without a last line that was cut off; return its key, None where not even that was written."""
        with open_regular(self.path, LARGEST) as file:
            content = file.read()
        whole = content.rfind(b"\n") + 1
        try:
            lines = [json.loads(line) for line in content[:whole].splitlines()]
            is_ours = not lines or lines[0]["format"] == FORMAT
            self._values = {str(line["name"]): line["value"] for line in lines[1:]}
            key = dict(lines[0]["key"]) if lines else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            is_ours = False
        if not is_ours or (not whole and not _begins(content)):
            raise OutputError(f"{self.path} holds no results of gtp-export: move it away, or choose another -o")
        if whole < len(content):
            os.truncate(self.path, whole)
        return key


def _begins(content: bytes) -> bool:
    start = json.dumps({"format": FORMAT}).encode()[:-1]
    return content.startswith(start[: len(content)])


@contextmanager
def working(directory: Path, name: str) -> Iterator[Path]:
    """Yield a folder to work in, in the hidden folder of an output directory, which no other process uses meanwhile.

    Raises:
        OutputError: another process uses it, or the directory cannot be written.
    """
    try:
        with tidied(directory), held_work(directory / WORK_NAME):
            place = directory / WORK_NAME / name
            place.mkdir(exist_ok=True)
            try:
                yield place
            finally:
                if place.exists() and not any(place.iterdir()):
                    place.rmdir()
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(os.fspath(directory)):
            raise
        raise OutputError(f"cannot write {directory}: {error.strerror}; choose another -o") from error


def remove(*folders: Path) -> None:
    """Remove working folders of ours, where they are."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def figures_key(
    recipe: Recipe, manifest: Manifest, images: ImageSet, calibration: Path | None, device: Mapping[str, str]
) -> dict[str, Any]:
    """Return what figures of a recipe's model depend on, in values that JSON gives back unchanged.

    Args:
        recipe: the model.
        manifest: of an export of it: its weights, preprocessing and classes.
        images: what accuracy is measured on.
        calibration: a folder of images that thresholds or int8 are calibrated on.
        device: where latency is measured, as ``gtp_runtime.machine.describe_machine`` returns it.
    """
    key = {
        "model": {"timm": recipe.timm, "arguments": recipe.model_args, "classes": manifest.model.num_classes},
        "image size": manifest.preprocessing.crop,
        "settings": recipe.gtp,
        "weights": manifest.weights.sha256,
        "preprocessing": asdict(manifest.preprocessing),
        "images": f"{len(images)} {images.stamp()}",
        "calibration images": _stamp(calibration),
        "device": dict(device),
        "versions": tool_versions(),
        "code": code_digests(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(key, default=str))  # YAML has dates, which are refused later
    return plain


def _stamp(folder: Path | None) -> str | None:
    """Return a hash of a folder's images; None without one."""
    try:
        return None if folder is None else ImageSet(folder, image_names(folder)).stamp()
    except ImageError:  # said where images are needed
        return None
