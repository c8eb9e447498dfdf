"""The models of a repository: the files that run, ``config.pbtxt`` of each, and the names of classes.

A front model stands before several models of one graph for fixed numbers of images: Triton batches requests for it.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_exporters.errors import LimitError
from gtp_runtime import Manifest, read_manifest
from gtp_runtime.errors import BackendMissingError, ManifestError
from gtp_runtime.manifest import FileEntry, TensorSpec, check_file

VERSION = "1"  # folder of a model's first version
DELAY_US = 1000
LABELS_NAME = "labels.txt"
KINDS = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32"}


class Word(str):
    """A word of an enumeration, which stands without quotes."""


@dataclass(frozen=True)
class TritonOptions:
    """How Triton runs the models.

    Attributes:
        name: the model's name; default: the recipe's.
        backend: "auto" (by the file: ONNX Runtime or TensorRT), "onnxruntime", "openvino" or "tensorrt".
        instances: copies of the model that run side by side.
        kind: where they run: "auto", "gpu" or "cpu".
        cuda_graphs: whether the GPU's work is recorded once and replayed; None: for engines.
        max_delay_us: microseconds that Triton waits for more requests of a batch; None: 1000. Only where there are
            several numbers of images, or a range of them.

    Raises:
        LimitError: a value that is not allowed.
    """

    name: str | None = None
    backend: str = "auto"
    instances: int = 1
    kind: str = "auto"
    cuda_graphs: bool | None = None
    max_delay_us: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("instances", self.instances, 1), ("max_delay_us", self.max_delay_us, 0)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise LimitError(f"{name}={value!r}: give a whole number of at least {least}")
        if self.kind not in KINDS:
            raise LimitError(f"kind={self.kind!r} is unknown: choose one of {', '.join(KINDS)}")


def tensors(specs: list[TensorSpec], labelled: str | None = None, without_batch: bool = False) -> list[dict[str, Any]]:
    """Describe inputs or outputs; the output ``labelled`` has names for its classes."""
    return [
        {
            "name": spec.name,
            "data_type": Word(TYPES[spec.dtype]),
            "dims": spec.shape[1:] if without_batch else spec.shape,
            **({"label_filename": LABELS_NAME} if spec.name == labelled else {}),
        }
        for spec in specs
    ]


def instance_group(options: TritonOptions) -> list[dict[str, Any]]:
    """Say how many copies run where."""
    return [{"count": options.instances, "kind": Word(KINDS[options.kind])}]


def pbtxt(values: dict[str, Any], indent: str = "") -> str:
    """Return values in protobuf's text format: a list is a field that is repeated, a list of numbers one line."""
    lines = []
    for name, value in values.items():
        for item in value if isinstance(value, list) and not _is_numbers(value) else [value]:
            if isinstance(item, dict):
                lines.append(f"{indent}{name} {{\n{pbtxt(item, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}\n")
    return "".join(lines)


def _is_numbers(value: list[Any]) -> bool:
    return all(isinstance(item, int) for item in value)


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return json.dumps(value, ensure_ascii=True)
    return str(value)


@dataclass(frozen=True)
class Source:
    """A file that Triton is to run: where it is, what its manifest says, Triton's backend, and the model's name."""

    path: Path
    manifest: Manifest
    backend: str
    name: str

    @property
    def entry(self) -> FileEntry:
        """What the manifest says of the file."""
        return self.manifest.entry(self.path.name)

    @property
    def batch(self) -> int:
        """Images a run, the most of a range."""
        return self.entry.batches.max

    @property
    def is_free(self) -> bool:
        """Whether a run takes any number of images up to ``batch``."""
        return self.entry.batch is not None


def find_sources(paths: Sequence[Path], options: TritonOptions) -> list[Source]:
    """Return the files to serve, those for fewer images first, once they are what their manifests say.

    Raises:
        LimitError, ManifestError: as ``write_repository``.
    """
    sources = sorted((_source(path, options) for path in paths), key=lambda source: source.batch)
    _check_one_model(sources)
    if len(sources) == 1 and not sources[0].is_free and options.max_delay_us is not None:
        raise LimitError(
            "a delay is for requests that are batched: give an export for a range of batches (-b 1..16), or several "
            "for other numbers of images"
        )
    return sources


def _source(path: Path, options: TritonOptions) -> Source:
    file = path / "model.onnx" if path.is_dir() else path
    if not file.exists():
        raise ManifestError(f"no file {file}: gtp-export export MODEL writes one")
    manifest = read_manifest(file.parent)
    check_file(file, manifest)
    backend = _backend(file, manifest.entry(file.name), options)
    name = re.sub(r"^\.|[^A-Za-z0-9_.-]", "_", options.name or manifest.model.name)
    return Source(file, manifest, backend, name)


def _backend(file: Path, entry: FileEntry, options: TritonOptions) -> str:
    is_engine = file.suffix == ".engine"
    fitting = ("tensorrt",) if is_engine else ("onnxruntime", "openvino")
    backend = fitting[0] if options.backend == "auto" else options.backend
    if backend not in fitting:
        raise LimitError(f"Triton's backend {backend!r} does not run {file.name}: choose {' or '.join(fitting)}")
    if is_engine and entry.engine is not None and entry.engine.flavor != "tensorrt":
        raise LimitError(
            f"{file.name} is an engine of TensorRT-RTX, which Triton does not run: build one with TensorRT"
        )
    if options.cuda_graphs and not is_engine:
        raise LimitError("Triton records CUDA graphs of engines alone: give a .engine file, or leave them out")
    if is_engine and options.kind == "cpu":
        raise LimitError("an engine runs on a GPU: leave out kind cpu")
    if entry.batch is not None and entry.batch.min > 1:
        raise LimitError(f"Triton's batches begin with one image, and {file.name} takes {entry.batch}: export -b 1..N")
    if entry.batch is not None and backend == "openvino":
        raise LimitError("Triton's OpenVINO backend takes fixed shapes alone: use onnxruntime, or export -b 8")
    return backend


def _check_one_model(sources: list[Source]) -> None:
    first = sources[0]
    if len(sources) > 1 and (free := next((source for source in sources if source.is_free), None)):
        raise LimitError(f"{free.path} takes {free.entry.batch} images and is a model by itself: give it alone")
    for other in sources[1:]:
        for what, value in (("weights", lambda of: of.manifest.weights.sha256), ("settings", _what_it_does)):
            if value(other) != value(first):
                raise LimitError(
                    f"{first.path} and {other.path} differ in {what}: several files are one model, exported for "
                    "several numbers of images (-b)"
                )
    batches = [source.batch for source in sources]
    if len(set(batches)) != len(batches):
        raise LimitError(f"two of the files take the same number of images ({', '.join(map(str, batches))})")


def _what_it_does(source: Source) -> Any:
    specs = [*source.entry.inputs, *source.entry.outputs]
    shapes = [(spec.name, spec.shape[1:], spec.dtype) for spec in specs]
    return source.manifest.method, source.manifest.settings, source.manifest.preprocessing, source.backend, shapes


def write_model(source: Source, folder: Path, options: TritonOptions) -> None:
    """Write the folder of a model that runs one file.

    Raises:
        BackendMissingError: OpenVINO is not installed.
        OSError: it cannot be written.
    """
    (folder / VERSION).mkdir(parents=True)
    _WRITERS[source.backend](source, folder / VERSION)
    values: dict[str, Any] = {
        "name": folder.name,
        "backend": source.backend,
        # 0: shapes are whole, and the graph takes this number of images and no other
        "max_batch_size": source.batch if source.is_free else 0,
        "input": tensors(source.entry.inputs, without_batch=source.is_free),
        "output": tensors(source.entry.outputs, write_labels(source.manifest, folder), without_batch=source.is_free),
        "instance_group": instance_group(options),
    }
    if source.is_free:
        values["dynamic_batching"] = {"max_queue_delay_microseconds": delay_of(options)}
    if source.backend == "tensorrt" and options.cuda_graphs is not False:
        values["optimization"] = {"cuda": {"graphs": True, "graph_spec": _graphs_of(source)}}
    (folder / "config.pbtxt").write_text(pbtxt(values), "ascii")


def delay_of(options: TritonOptions) -> int:
    """Return the microseconds that Triton waits for more requests."""
    return DELAY_US if options.max_delay_us is None else options.max_delay_us


def _graphs_of(source: Source) -> list[dict[str, Any]]:
    """Return the shapes for which a CUDA graph is recorded: the one there is, or those that stand for a range."""
    first = 1 if source.is_free else 0
    inputs = [{"key": spec.name, "value": {"dim": spec.shape[first:]}} for spec in source.entry.inputs]
    sizes = source.entry.batches.sizes if source.is_free else [0]
    return [{"batch_size": size, "input": inputs} for size in sizes]


def write_labels(manifest: Manifest, folder: Path) -> str | None:
    """Write the names of classes, one a line, and return the output that they belong to; None without."""
    if manifest.labels is None or manifest.gives_features:
        return None
    lines = [" ".join(label.split()) for label in manifest.labels]
    (folder / LABELS_NAME).write_text("\n".join(lines) + "\n", "utf-8")
    return "logits"


def _copy_graph(source: Source, place: Path) -> None:
    shutil.copyfile(source.path, place / "model.onnx")
    if source.entry.external_data is not None:  # the graph refers to it by this name
        shutil.copyfile(source.path.with_name(source.entry.external_data), place / source.entry.external_data)


def _copy_engine(source: Source, place: Path) -> None:
    shutil.copyfile(source.path, place / "model.plan")


def _convert(source: Source, place: Path) -> None:
    """Write OpenVINO's own form, which its backend reads: ``model.xml`` and ``model.bin``."""
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError("openvino is not installed: pip install 'gtp-export[openvino]'") from error
    model = openvino.Core().read_model(str(source.path))
    openvino.save_model(model, str(place / "model.xml"), compress_to_fp16=False)


_WRITERS: dict[str, Callable[[Source, Path], None]] = {
    "onnxruntime": _copy_graph,
    "openvino": _convert,
    "tensorrt": _copy_engine,
}


def write_front(sources: list[Source], names: list[str], folder: Path, options: TritonOptions) -> None:
    """Write the folder of the front model, for Triton's Python backend.

    Args:
        sources: the same model for several numbers of images, the fewest first.
        names: those of their models.
        folder: the front model's.
        options: how Triton runs it.

    Raises:
        OSError: it cannot be written.
    """
    (folder / VERSION).mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("batching.py"), folder / VERSION / "model.py")
    largest, batches = sources[-1], [source.batch for source in sources]
    values: dict[str, Any] = {
        "name": folder.name,
        "backend": "python",
        "max_batch_size": largest.batch,
        "input": tensors(largest.entry.inputs, without_batch=True),
        "output": tensors(largest.entry.outputs, write_labels(largest.manifest, folder), without_batch=True),
        "instance_group": [{"count": options.instances, "kind": Word("KIND_CPU")}],  # it only cuts and joins arrays
        "dynamic_batching": {
            "preferred_batch_size": batches,
            "max_queue_delay_microseconds": delay_of(options),
        },
        "parameters": [
            {"key": f"model_{batch}", "value": {"string_value": name}}
            for batch, name in zip(batches, names, strict=True)
        ],
    }
    (folder / "config.pbtxt").write_text(pbtxt(values), "ascii")
