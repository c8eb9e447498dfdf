"""What ``model.json`` says, as types: the one definition that reading, writing and docs/model.schema.json follow."""

from dataclasses import dataclass, field
from typing import Any

from gtp_runtime.errors import ManifestError
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.text import one_line

SCHEMA_VERSION = "2.1"
FILE_NAME = "model.json"
WORK_NAME = ".gtp-export"  # the hidden folder of an artifact directory in which an export is written
MODEL_NAME = "model.onnx"
REFERENCE_NAME = "reference.npz"
SIGNATURE_NAME = "model.sig"
ENGINE_SUFFIX = ".engine"
CACHE_SUFFIX = ".rtx-cache"  # of the kernels that TensorRT-RTX keeps beside an engine


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, static shape and numpy dtype name."""

    name: str
    shape: list[int]
    dtype: str


@dataclass(frozen=True)
class EngineInfo:
    """How an engine was built. Values that need a device are None if the engine was built without one.

    Attributes:
        flavor: "tensorrt" or "rtx".
        version: TensorRT's.
        cuda, driver: versions, "12.6".
        gpu: name of the GPU that built it.
        compute_capability: compute capability of that GPU, "8.7".
        targets: compute capabilities that it was built for ahead of time, ["sm86"]; if empty, it is for the GPU that
            built it (RTX: for Ampere and later).
        jetpack: Jetson Linux release, if it was built on a Jetson.
        onnx: name of the graph that it was built from; ``onnx_sha256`` is its hash.
        options: workspace, opt_level, timing_cache as given.
        build_seconds: time that the builder took.
        layers: number of layers of the parsed network.
        device_memory: device memory that a run needs, in bytes.
        inspector: TensorRT's description of the built layers.
    """

    flavor: str
    version: str
    onnx: str
    onnx_sha256: str
    layers: int
    build_seconds: float
    cuda: str | None = None
    driver: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    targets: list[str] = field(default_factory=list)
    jetpack: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    device_memory: int | None = None
    inspector: dict[str, Any] | None = None


@dataclass(frozen=True)
class QuantizationInfo:
    """How a graph was quantised.

    Attributes:
        target: the runtime that its form is for: "onnxruntime", "tensorrt" or "openvino".
        activations: "uint8" (asymmetric) or "int8" (symmetric, zero point 0).
        calibration: how ranges were measured: "minmax", "entropy" or "percentile".
        images: how many they were measured on.
        products: how many products are int8.
        kept_fp32: the layers that stay float32.
        selection: whether the products that decide which tokens leave are int8 as well.
    """

    target: str
    activations: str
    calibration: str
    images: int
    products: int
    kept_fp32: list[str] = field(default_factory=list)
    selection: bool = False


@dataclass(frozen=True)
class FileEntry:
    """A file of the artifact directory.

    Attributes:
        role: "model", "dense" (the dense baseline), "reference" (the parity pack), "data" (weights of a graph) or
            "report" (a page for people).
        sha256: SHA-256 of the file, in hexadecimal digits.
        size: size in bytes.
        method: token reduction method: "gtp", "dense", …
        precision: "fp32", …
        macs: multiply-accumulates of the backbone for one image.
        nodes: number of ONNX nodes.
        inputs, outputs: names, shapes and dtypes.
        engine: how an engine was built; None for other files.
        external_data: name of the file with the graph's weights, in the same directory; it has its own entry with the
            role "data". None if the graph contains its weights.
        quantization: how an int8 graph was quantised; None for other files.
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
    quantization: QuantizationInfo | None = None


@dataclass(frozen=True)
class LayerEntry:
    """One transformer layer.

    Attributes:
        tokens_in: number of tokens in the attention.
        tokens_out: number of tokens in the MLP.
        num_prop: number of tokens removed between the two.
        macs: multiply-accumulates of the backbone for one image.
        method_macs: multiply-accumulates that the method adds.
        nodes: number of ONNX nodes.
    """

    tokens_in: int
    tokens_out: int
    num_prop: int
    macs: int
    method_macs: int
    nodes: int


@dataclass(frozen=True)
class ModelInfo:
    """The exported model.

    Attributes:
        name: name of the recipe.
        title: description of the model.
        timm: timm's name of the model.
        num_classes: number of classes; 0 if the output is features instead of logits.
        num_prefix: number of prefix tokens (class, distillation, registers).
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
        detail: the file, hub entry or seed.
        sha256: SHA-256 of all tensors: names, shapes, dtypes and values.
        notes: changes made when they were loaded.
    """

    source: str
    detail: str
    sha256: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """The manifest of an export.

    Attributes:
        model: the exported model.
        weights: where its weights come from.
        method: name of the token reduction method: "gtp", "tome", …
        settings: settings of the method.
        layers: one entry per layer.
        macs: multiply-accumulates for one image: "backbone", "method" (added by the method, "setup" included),
            "dense", "embed", "head", "setup" (the part of "method" that is computed once, before the layers).
        preprocessing: from an image file to the input tensor.
        files: the files, by name.
        target: the runtime whose limits were checked: "tensorrt", "onnxruntime" or "openvino".
        opset: opset of the ONNX graphs.
        labels: class names, in order; None if unknown.
        label_ids: other names of the same classes (WordNet ids), for image folders.
        reference: the images of the parity pack: "images" (origin, or "synthetic"), "count".
        tools: versions of the packages that made the files.
        notes: remarks on the export for users.
        results: "parity", "latency", "accuracy" and "quantization" (its gate), by file name, added when they are
            measured; "quantization_failed" of files that failed their gate.
        schema_version: version of this schema.
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
        """Return the entry of a file.

        Raises:
            ManifestError: the manifest does not list it.
        """
        if name not in self.files:
            listed = one_line(", ".join(self.files))
            raise ManifestError(f"{FILE_NAME} does not list {one_line(name)}: it lists {listed}; export again")
        return self.files[name]

    @property
    def gives_features(self) -> bool:
        """Whether the output is features instead of logits."""
        return not self.model.num_classes

    @property
    def num_prop(self) -> list[int]:
        """Number of tokens removed in each layer."""
        return [layer.num_prop for layer in self.layers]
