"""What ``model.json`` says, as types: the one definition that reading, writing and docs/model.schema.json follow."""

from dataclasses import dataclass, field
from typing import Any

from gtp_runtime.engine_info import EngineInfo
from gtp_runtime.errors import ManifestError
from gtp_runtime.preprocessing import Preprocessing

SCHEMA_VERSION = "2.0"
FILE_NAME = "model.json"
REFERENCE_NAME = "reference.npz"


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
        role: "model", "dense" (the unpatched twin), "reference" (the parity pack), "data" (weights of a graph) or
            "report" (the page for people).
        sha256: of the file, in hexadecimal digits.
        size: bytes.
        method: how tokens are reduced: "gtp", "dense", …
        precision: "fp32", …
        macs: multiply-accumulates for one image, the backbone's.
        nodes: ONNX nodes.
        inputs, outputs: names, shapes and dtypes.
        engine: how an engine was built; None for other files.
        external_data: name of the file beside a graph that holds its weights; it has an entry of its own, with the
            role "data". None where the graph holds them.
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
    external_data: str | None = None


@dataclass(frozen=True)
class LayerEntry:
    """One transformer layer.

    Attributes:
        tokens_in: tokens that attend.
        tokens_out: tokens that pass the MLP.
        num_prop: tokens that leave in between.
        macs: multiply-accumulates of the backbone, for one image.
        method_macs: those that the method adds.
        nodes: ONNX nodes.
    """

    tokens_in: int
    tokens_out: int
    num_prop: int
    macs: int
    method_macs: int
    nodes: int


@dataclass(frozen=True)
class ModelInfo:
    """What was exported.

    Attributes:
        name: the recipe's.
        title: the same for readers.
        timm: timm's name.
        num_classes: 0 where features come out in place of logits.
        num_prefix: class and register tokens.
        grid: rows and columns of patches.
    """

    name: str
    title: str
    timm: str
    num_classes: int
    num_prefix: int
    grid: list[int]


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights come from.

    Attributes:
        source: "pretrained", "file" or "random".
        detail: which file, hub entry or seed.
        sha256: of all values by name.
        notes: what was done to them.
    """

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
        method: name of the method that reduces tokens: "gtp", "tome", …
        settings: the method's settings.
        layers: one entry a layer.
        macs: for one image: "backbone", "method" (what the method adds, "setup" included), "dense", "embed", "head",
            "setup" (what is computed once, before the layers).
        preprocessing: from an image file to the input tensor.
        files: by file name.
        target: the runtime whose limits were checked: "tensorrt", "onnxruntime" or "openvino".
        opset: of the ONNX graphs.
        labels: class names, in order; None where unknown.
        label_ids: further names of the same classes (WordNet ids), for image folders.
        reference: what the parity pack holds: "images" ("synthetic" or where from), "count".
        tools: versions of what made the files.
        notes: what people should know of the export.
        results: "parity", "latency" and "accuracy", by file name, as they are measured.
        schema_version: of this schema.
    """

    model: ModelInfo
    weights: WeightsInfo
    method: str
    settings: dict[str, Any]
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
