"""One model of a repository: the file that runs, ``config.pbtxt`` and the names of classes."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_exporters.errors import LimitError
from gtp_exporters.triton.config import LABELS_NAME, TritonOptions, instance_group, pbtxt, tensors
from gtp_runtime import Manifest, read_manifest
from gtp_runtime.errors import BackendMissingError, ManifestError
from gtp_runtime.manifest import FileEntry, check_file

VERSION = "1"  # folder of a model's first version


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
        """Images a run."""
        return self.entry.inputs[0].shape[0]


def find_sources(paths: Sequence[Path], options: TritonOptions) -> list[Source]:
    """Return the files to serve, those for fewer images first, once they are what their manifests say.

    Raises:
        LimitError, ManifestError: as ``write_repository``.
    """
    sources = sorted((_source(path, options) for path in paths), key=lambda source: source.batch)
    _check_one_model(sources)
    if len(sources) == 1 and options.max_delay_us is not None:
        raise LimitError("a delay is for requests that are batched: give exports for several numbers of images (-b)")
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
    return backend


def _check_one_model(sources: list[Source]) -> None:
    first = sources[0]
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
        "max_batch_size": 0,  # shapes are whole: the graph takes this number of images and no other
        "input": tensors(source.entry.inputs),
        "output": tensors(source.entry.outputs, write_labels(source.manifest, folder)),
        "instance_group": instance_group(options),
    }
    if source.backend == "tensorrt" and options.cuda_graphs is not False:
        values["optimization"] = {"cuda": {"graphs": True, "graph_spec": [_graph_of(source)]}}
    (folder / "config.pbtxt").write_text(pbtxt(values), "ascii")


def _graph_of(source: Source) -> dict[str, Any]:
    """Return the one shape for which a CUDA graph is recorded."""
    inputs = [{"key": spec.name, "value": {"dim": spec.shape}} for spec in source.entry.inputs]
    return {"batch_size": 0, "input": inputs}


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
