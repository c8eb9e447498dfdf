"""What ``model.json`` says, as types: the one definition that reading, writing and docs/model.schema.json follow.

Types carry their ranges, so a value that could not be true is refused when it is read. Names that a newer minor version
may add to (roles, precisions, dtypes, flavours of TensorRT) are texts: a file with one that this version does not know
is refused when somebody asks for it (``Manifest.entry``), and hides no other file.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.images.preprocessing import MAX_SIDE, Preprocessing
from gtp_runtime.manifest.results import is_whole
from gtp_runtime.messages import one_line
from gtp_runtime.precisions import PRECISIONS

SCHEMA_VERSION = "2.4"
FILE_NAME = "model.json"
WORK_NAME = ".gtp-export"  # the hidden folder of an artifact directory in which an export is written
MODEL_NAME = "model.onnx"
REFERENCE_NAME = "reference.npz"
SIGNATURE_NAME = "model.sig"
ENGINE_SUFFIX = ".engine"
CACHE_SUFFIX = ".rtx-cache"  # of the kernels that TensorRT-RTX keeps beside an engine

ROLES = ("model", "dense", "reference", "data", "report")
TRACES = ("propagated", "received_by")  # outputs: ids of the tokens that left, and of those that they merged into
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
FLAVORS = ("tensorrt", "rtx")  # of TensorRT
MOST = 1 << 62  # of anything that is counted
MOST_CLASSES = 1 << 20
MOST_BYTES = 1 << 32  # of one tensor

# Control characters, and those that turn the direction of writing: texts are shown on terminals and in logs.
_CONTROL = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_TEXT = f"^(?!.*[{_CONTROL}])"
_NAME = rf"^(?!\.{{1,2}}$)(?!.*[/\\{_CONTROL}])"
_VERSION = rf"^\d{{1,9}}(\.\d{{1,9}})+(?!.*[{_CONTROL}])"
FORMS = {_TEXT: "text without control characters", _NAME: "the name of a file next to it", _VERSION: "a version"}
Text = Annotated[str, Meta(max_length=4096, pattern=_TEXT)]
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=_NAME)]
Version = Annotated[str, Meta(max_length=4096, pattern=_VERSION)]
Count = Annotated[int, Meta(ge=0, le=MOST)]
Classes = Annotated[int, Meta(ge=0, le=MOST_CLASSES)]
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Axis = Annotated[int, Meta(ge=1, lt=MOST_BYTES)]


@dataclass(frozen=True)
class BatchRange:
    """How many images a run takes, from the fewest to the most.

    Raises:
        InputError: ``min`` below 1, or above ``max``.
    """

    min: Axis
    max: Axis

    def __post_init__(self) -> None:
        whole = all(isinstance(size, int) and not isinstance(size, bool) for size in (self.min, self.max))
        if not whole or not 1 <= self.min <= self.max:
            raise InputError(
                f"a batch of {self.min}..{self.max}: give the fewest images of a run, at least 1, and the most: 1..16"
            )

    def __str__(self) -> str:
        return f"{self.min}..{self.max}" if self.min < self.max else str(self.max)

    def __contains__(self, images: int) -> bool:
        return self.min <= images <= self.max

    @property
    def sizes(self) -> list[int]:
        """Numbers of images that stand for all: the most, a middle one and the fewest, each once."""
        return list(dict.fromkeys([self.max, (self.min + self.max) // 2, self.min]))


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, shape and numpy dtype name; of a range of batches the largest shape."""

    name: Text
    shape: Annotated[list[Axis], Meta(min_length=1, max_length=8)]
    dtype: Text


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
        options: workspace, opt_level, timing_cache, opt_batch as given.
        build_seconds: time that the builder took.
        layers: number of layers of the parsed network.
        device_memory: device memory that a run needs, in bytes.
        inspector: TensorRT's description of the built layers.
    """

    flavor: Text
    version: Version
    onnx: Name
    onnx_sha256: Text
    layers: Count
    build_seconds: float
    cuda: Text | None = None
    driver: Text | None = None
    gpu: Text | None = None
    compute_capability: Text | None = None
    targets: list[Text] = field(default_factory=list)
    jetpack: Text | None = None
    options: dict[str, Any] = field(default_factory=dict)
    device_memory: Count | None = None
    inspector: dict[str, Any] | None = None


@dataclass(frozen=True)
class ConversionInfo:
    """How a file for another runtime was made from a graph.

    Attributes:
        to: the format: "litert", "mnn", "executorch", "coreml", "qnn".
        converter: the program; ``version`` is its.
        onnx: name of the graph; ``onnx_sha256`` is its hash.
        rewrites: what was changed in the graph for the converter, by name.
        seconds: time that it took.
        soc: the SoC that it was compiled for; empty where it runs on any.
    """

    to: Text
    converter: Text
    version: Text
    onnx: Name
    onnx_sha256: Text
    rewrites: list[Text] = field(default_factory=list)
    seconds: float = 0.0
    soc: Text = ""


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
        weight_bits: of the codes of weights: 8, or 7, which no x86 CPU saturates.
    """

    target: Text
    activations: Text
    calibration: Text
    images: Count
    products: Count
    kept_fp32: list[Text] = field(default_factory=list)
    selection: bool = False
    weight_bits: Count = 8


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
        conversion: how a file for another runtime was made from a graph; None for other files.
        batch: how many images a run takes, where the first axis is free; None where it is fixed, as shapes say.
    """

    role: Text
    sha256: Text
    size: Count
    method: Text = ""
    precision: Text = ""
    macs: Count = 0
    nodes: Count = 0
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    engine: EngineInfo | None = None
    external_data: Name | None = None
    quantization: QuantizationInfo | None = None
    conversion: ConversionInfo | None = None
    batch: BatchRange | None = None

    @property
    def batches(self) -> BatchRange:
        """How many images a run takes, of a file with inputs."""
        size = self.inputs[0].shape[0]
        return BatchRange(size, size) if self.batch is None else self.batch

    @property
    def origin(self) -> tuple[str, str] | None:
        """The graph that an engine or a converted file was made from, and its sha256; None for other files."""
        made = self.engine or self.conversion
        return None if made is None else (made.onnx, made.onnx_sha256)

    @property
    def answers(self) -> list[TensorSpec]:
        """The outputs that are answers: all but the ids of the tokens that left."""
        return [spec for spec in self.outputs if spec.name not in TRACES]

    @property
    def unknown(self) -> str:
        """What a newer version wrote that this one does not know: "precision 'fp8'"; "" where it knows all."""
        tensors = [*self.inputs, *self.outputs]
        flavor = FLAVORS[0] if self.engine is None else self.engine.flavor
        checks = [("role", self.role, ROLES), ("precision", self.precision, ("", *PRECISIONS))]
        checks += [("engine", flavor, FLAVORS), *(("dtype", spec.dtype, DTYPES) for spec in tensors)]
        return next((f"{what} {value!r}" for what, value, values in checks if value not in values), "")


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

    tokens_in: Count
    tokens_out: Count
    num_prop: Count
    macs: Count
    method_macs: Count
    nodes: Count


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
        activation: what makes probabilities of logits: "softmax", or "sigmoid" for each class by itself (several labels
            an image; one logit, whose two classes are 0 and 1).
    """

    name: Text
    title: Text
    timm: Text
    num_classes: Classes
    num_prefix: Classes
    grid: Annotated[list[Side], Meta(min_length=2, max_length=2)]
    activation: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def named_classes(self) -> int:
        """How many classes have names and folders: two for one logit."""
        return 2 if self.num_classes == 1 else self.num_classes


@dataclass(frozen=True)
class OutputInfo:
    """An answer of the model; its shape and dtype are with each file.

    Attributes:
        kind: "logits", "features" (pooled), "patches" (B, patches, dim), "map" (B, dim, rows, columns), or "tensor", of
            a module with outputs of its own.
        layer: which layer patches or a map are of, from 0; None for others.
        stride: height and width of a patch in pixels of the input; None for others.
    """

    kind: Text
    layer: Classes | None = None
    stride: list[Side] | None = None


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights come from.

    Attributes:
        source: "pretrained", "file" or "random".
        detail: the file, hub entry or seed.
        sha256: SHA-256 of all tensors: names, shapes, dtypes and values.
        notes: changes made when they were loaded.
    """

    source: Text
    detail: Text
    sha256: Text
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CurveInfo:
    """The distance from the dense model where tokens leave in one layer alone.

    Attributes:
        layer: which, from 0.
        amounts: tokens that leave, ascending.
        distances: one an amount.
    """

    layer: Classes
    amounts: list[Count]
    distances: list[float]


@dataclass(frozen=True)
class FittingInfo:
    """How the schedule was fitted to the model.

    Attributes:
        schedule: as it was asked for: "fitted", or "fitted:4" for at most 4 steps.
        budget: what was given: "keep", "macs", "num_prop" or "latency" (a share of the dense model's time).
        images: name of the folder, or "the recipe's own"; ``count`` of them were used, none of the parity pack's.
        seed: of the search.
        measure: of distances: "divergence" (of class probabilities, nats) or "squared_error" (a share).
        distance, error: from the dense model on these images, and its standard error.
        usual: the schedule that is used where nothing is fitted, or "safe:K" for at most K + 1 steps;
            ``usual_distance`` is that of it, on the same images, None where it does not meet the budget.
        cost: as a share of the dense model's MACs, or of its time for a budget of latency.
        num_prop: tokens that leave in each layer.
        runs: how many schedules were measured, each on a part of the images.
        seconds: the limit of time that was given; None for none.
        curves: distances where tokens leave in one layer alone.
    """

    schedule: Text
    budget: dict[Text, float]
    images: Text
    count: Count
    seed: Count
    measure: Text
    distance: float
    error: float
    usual: Text
    usual_distance: float | None
    cost: float
    num_prop: list[Count]
    runs: Count
    seconds: float | None = None
    curves: list[CurveInfo] = field(default_factory=list)


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
        target: the runtime whose limits were checked: "tensorrt", "onnxruntime", "openvino", …
        form: how the graphs choose and move tokens: "sort", "ranks" or "ranks-arithmetic".
        opset: opset of the ONNX graphs.
        labels: class names, in order; None if unknown.
        label_ids: other names of the same classes (WordNet ids), for image folders.
        class_order: "timm" or "torchvision": the order of class folders that the model was trained with, where the
            export was told, or took it for its images; null where it is not known.
        reference: the images of the parity pack: "images" (origin, or "synthetic"), "count".
        tools: versions of the packages that made the files.
        notes: remarks on the export for users.
        fitting: how the schedule was fitted to the model; None where it was not.
        outputs: the answers, by name, in the order in which the files give them; the tokens that left follow them.
        results: "parity", "latency", "accuracy" and "quantization" (its gate), by file name, added when they are
            measured; "quantization_failed" of files that failed their gate.
        schema_version: version of this schema.
    """

    model: ModelInfo
    weights: WeightsInfo
    method: Text
    settings: dict[str, Any]
    layers: list[LayerEntry]
    macs: dict[str, Count]
    preprocessing: Preprocessing
    files: dict[Name, FileEntry]
    target: Text = "tensorrt"
    form: Text = "sort"
    opset: Count = 0
    labels: list[Text] | None = None
    label_ids: list[Text] | None = None
    class_order: Literal["timm", "torchvision"] | None = None
    reference: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fitting: FittingInfo | None = None
    outputs: dict[Text, OutputInfo] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema_version: str = SCHEMA_VERSION

    def entry(self, name: str) -> FileEntry:
        """Return the entry of a file to use.

        Raises:
            ManifestError: the manifest does not list it, or a newer version wrote it in a form that is unknown here.
        """
        entry = self.listed(name)
        if entry.unknown:
            raise ManifestError(
                f"{one_line(name)} has the {one_line(entry.unknown)}, unknown to this gtp-export: update it, or use "
                f"another of {one_line(', '.join(self.files))}"
            )
        return entry

    def listed(self, name: str) -> FileEntry:
        """Return the entry of a file, whatever it is.

        Raises:
            ManifestError: the manifest does not list it.
        """
        if name not in self.files:
            listed = one_line(", ".join(self.files))
            raise ManifestError(f"{FILE_NAME} does not list {one_line(name)}: it lists {listed}; export again")
        return self.files[name]

    def measured(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the results of a kind, by file name: those that hold all that ``RESULTS`` names. Others, of another
        version or damaged, are left out.
        """
        return {name: result for name, result in self.results.get(kind, {}).items() if is_whole(result, kind)}

    @property
    def gives_features(self) -> bool:
        """Whether the output is features, pooled or of each patch, instead of logits."""
        return not self.model.num_classes

    @property
    def is_dense(self) -> bool:
        """Whether the outputs are more than one vector for each image."""
        return any(output.kind not in ("logits", "features") for output in self.outputs.values())

    @property
    def num_prop(self) -> list[int]:
        """Number of tokens removed in each layer."""
        return [layer.num_prop for layer in self.layers]
