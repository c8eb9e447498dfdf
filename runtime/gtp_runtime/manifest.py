"""The manifest, ``model.json``: the one schema of what an export wrote.

Readers take what they know: a newer minor version is read, a newer major version is refused.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gtp_runtime.engine_info import EngineInfo
from gtp_runtime.errors import ManifestError
from gtp_runtime.preprocessing import Preprocessing

SCHEMA_VERSION = "1.1"
FILE_NAME = "model.json"
REFERENCE_NAME = "reference.npz"
T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, static shape and numpy dtype name."""

    name: str
    shape: list[int]
    dtype: str


@dataclass(frozen=True)
class FileEntry:
    """A file of the artifact directory.

    Attributes:
        role: "model", "dense" (the unpatched twin) or "reference" (the parity pack).
        sha256: of the file.
        size: bytes.
        method: how tokens are reduced: "gtp", "dense", …
        precision: "fp32", …
        macs: multiply-accumulates for one image, the backbone's.
        nodes: ONNX nodes.
        inputs, outputs: names, shapes and dtypes.
        engine: how an engine was built; None for other files.
    """

    role: str
    sha256: str
    size: int
    method: str = ""
    precision: str = ""
    macs: int = 0
    nodes: int = 0
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    engine: EngineInfo | None = None


@dataclass(frozen=True)
class LayerEntry:
    """One layer: tokens that attend, tokens that pass the MLP, how many left; MACs for one image; ONNX nodes."""

    tokens_in: int
    tokens_out: int
    num_prop: int
    macs: int
    gtp_macs: int
    nodes: int


@dataclass(frozen=True)
class ModelInfo:
    """What was exported; ``num_classes`` is 0 where features come out in place of logits, ``num_prefix`` counts class
    and register tokens, ``grid`` is (rows, columns).
    """

    name: str
    title: str
    timm: str
    num_classes: int
    num_prefix: int
    grid: list[int]


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights come from: "pretrained", "file" or "random"; the hash is of all values by name."""

    source: str
    detail: str
    sha256: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What an export wrote and what is known of it.

    Attributes:
        model: what was exported.
        weights: where its weights come from.
        gtp: the arguments of ``GTPConfig``.
        layers: one entry a layer.
        macs: for one image: "backbone", "gtp" (what GTP adds), "dense", "embed", "head", "graph".
        preprocessing: from an image file to the input tensor.
        files: by file name.
        target: the runtime whose limits were checked: "tensorrt", "onnxruntime" or "openvino".
        opset: of the ONNX graphs.
        labels: class names, in order; None where unknown.
        label_ids: further names of the same classes (WordNet ids), for image folders.
        reference: what the parity pack holds: "images" ("synthetic" or where from), "count".
        tools: versions of what made the files.
        notes: what people should know of the export.
        results: "parity" and "latency", by file name, as they are measured.
        schema_version: of this schema.
    """

    model: ModelInfo
    weights: WeightsInfo
    gtp: dict[str, Any]
    layers: list[LayerEntry]
    macs: dict[str, int]
    preprocessing: Preprocessing
    files: dict[str, FileEntry]
    target: str = "tensorrt"
    opset: int = 0
    labels: list[str] | None = None
    label_ids: list[str] | None = None
    reference: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema_version: str = SCHEMA_VERSION

    def entry(self, name: str) -> FileEntry:
        """Return what is known of a file.

        Raises:
            ManifestError: the manifest does not list it.
        """
        if name not in self.files:
            raise ManifestError(f"{FILE_NAME} does not list {name}: it lists {', '.join(self.files)}; export again")
        return self.files[name]

    @property
    def gives_features(self) -> bool:
        """Whether the output is features, for want of a classifier."""
        return not self.model.num_classes

    @property
    def num_prop(self) -> list[int]:
        """How many tokens leave in each layer."""
        return [layer.num_prop for layer in self.layers]


def read_manifest(directory: Path) -> Manifest:
    """Read ``model.json`` of an artifact directory.

    Raises:
        ManifestError: no manifest, not one, or of a newer major version.
    """
    path = directory / FILE_NAME
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ManifestError(
            f"no manifest {path}: a model is used with the {FILE_NAME} that gtp-export export wrote beside it"
        ) from error
    except ValueError as error:
        raise ManifestError(f"{path} is not JSON ({error}): export again") from error
    _check_version(values, path)
    try:
        manifest: Manifest = _read(Manifest, values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} is not a manifest of gtp-export ({error}): export again") from error
    return manifest


def _check_version(values: Any, path: Path) -> None:
    version = str(values.get("schema_version", "")) if isinstance(values, dict) else ""
    major = version.partition(".")[0]
    if not major.isdigit():
        raise ManifestError(f"{path} has no schema_version: it is not a manifest of gtp-export")
    if int(major) > int(SCHEMA_VERSION.partition(".")[0]):
        raise ManifestError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}: update gtp-export here")


def _read(kind: Any, value: Any) -> Any:
    """Build nested dataclasses from plain values; unknown keys are passed over."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {entry.name: value[entry.name] for entry in fields(kind) if entry.name in value}
        return kind(**{name: _read(hints[name], item) for name, item in known.items()})  # type: ignore[operator]
    arguments = get_args(kind)
    if get_origin(kind) is UnionType and value is not None and is_dataclass(arguments[0]):
        return _read(arguments[0], value)
    if get_origin(kind) is list and is_dataclass(arguments[0]):
        return [_read(arguments[0], item) for item in value]
    if get_origin(kind) is dict and is_dataclass(arguments[1]):
        return {key: _read(arguments[1], item) for key, item in value.items()}
    return value


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write ``model.json``, whole or not at all."""
    content = json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".model-", suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, directory / FILE_NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    """Hash a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_file(path: Path, manifest: Manifest) -> None:
    """Check that a file is what the manifest says.

    Raises:
        ManifestError: it is missing, not listed, or its sha256 differs.
    """
    entry = manifest.entry(path.name)
    if not path.exists():
        raise ManifestError(f"no file {path}, though the manifest lists it: export again")
    if file_sha256(path) != entry.sha256:
        raise ManifestError(f"{path} is not the file that its manifest describes (sha256 differs): export again")
