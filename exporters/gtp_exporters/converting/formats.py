"""The formats of other runtimes: one table, and an entry of it, beside a backend, is all that adding one takes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gtp_exporters.converting import tflite_weights
from gtp_exporters.converting.environment import Environment, run, run_ours
from gtp_exporters.converting.qnn import SOCS, to_qnn
from gtp_exporters.errors import ConversionError
from gtp_runtime.backends import executorch, litert, mnn, qnn
from gtp_runtime.errors import BackendMissingError
from gtp_runtime.extras import Extra
from gtp_runtime.messages import Progress

ONNX2TF = Environment(
    "onnx2tf",
    "2.6.9",
    ("onnx2tf==2.6.9", "ai-edge-quantizer==0.10.0"),
    (
        "absl-py==2.5.1",
        "ai-edge-litert==2.3.0",
        "flatbuffers==25.12.19",
        "h5py==3.16.0",
        "immutabledict==4.3.1",
        "ml-dtypes==0.6.0",
        "numpy==2.2.6",
        "onnx==1.20.1",
        "onnxoptimizer==0.4.2",
        "onnxruntime==1.26.0",
        "onnxscript==0.6.2",
        "onnxsim==0.8.1",
        "opencv-python-headless==4.13.0.92",
        "protobuf==7.36.2",
        "psutil==7.2.2",
        "scipy==1.17.1",
        "sne4onnx==2.0.1",
        "sng4onnx==2.0.1",
        "tqdm==4.70.1",
    ),
    "800 MB",
)
COREML = Extra("coreml", {"coremltools": "coremltools", "torch": "torch"})
# MNN.tools.mnnconvert would install another package and report usage; the module below it does neither
MNN_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
MNN_SCALES = ["--compressionParamsFile"]
MNN_INT8_WEIGHTS = ["--weightQuantBits", "8"]
MNN_WEIGHTS = {"fp32": [], "fp16": ["--fp16"], "int8_weights": MNN_INT8_WEIGHTS, "int8": []}


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        suffix: of its files.
        backend: the backend of the runtime that runs and proves them; None where nothing here does.
        extra: what installs that, or the converter.
        converter: the program that makes them.
        precisions: those that it writes, the default first.
        rewrites: of ``REWRITES``, by name.
        convert: makes a file from a graph's, in a precision, and returns the converter's version. The graph's file
            may be changed: it is a copy. For int8 it takes a file of ``inputs`` (``Calibration.write``).
        ready: installs the converter, or raises ``MissingPackageError``.
        socs: the SoCs that it is compiled for, one for each file; none where its files run on any. ``convert`` takes
            the name as ``soc`` then.
        images: of the parity pack, that prove a file where a simulator runs it: it takes seconds for each, and times
            that mean nothing; None for all.
        judges: images, that the gate of int8 judges it on there; None for all.
    """

    suffix: str
    backend: str | None
    extra: Extra
    converter: str
    precisions: tuple[str, ...]
    rewrites: tuple[str, ...]
    convert: Callable[..., str]
    ready: Callable[[Progress], object]
    socs: tuple[str, ...] = ()
    images: int | None = None
    judges: int | None = None


def to_litert(graph: Path, target: Path, precision: str, inputs: Path | None = None) -> str:
    """Convert with onnx2tf: names, shapes and layouts stay; ``tflite_weights`` makes the weights smaller.

    onnx2tf's own fp16 files have fp16 inputs, and choose tokens by fp16 scores.
    """
    work = target.with_name(f"{target.name}.work")
    options = ["-o", str(work), "-kat", "images", "-n", "-nuo"]
    run([str(ONNX2TF.python), "-m", "onnx2tf", "-i", str(graph), *options], graph.parent)
    made = work / f"{graph.stem}_float32.tflite"
    if not made.is_file():
        raise ConversionError(f"onnx2tf wrote no {made.name}")
    if precision == "fp32":
        made.replace(target)
    else:
        measured = [] if inputs is None else [str(inputs)]
        run([str(ONNX2TF.python), tflite_weights.__file__, str(made), str(target), precision, *measured], graph.parent)
    return ONNX2TF.version


def to_mnn(graph: Path, target: Path, precision: str, inputs: Path | None = None) -> str:
    """Convert with MNN's own converter; small weights are computed with in float32, and int8 in int8."""
    options = MNN_WEIGHTS[precision]
    if inputs is not None:
        from gtp_exporters.converting.mnn_int8 import write_scales

        layers, scales = graph.with_suffix(".json"), graph.with_suffix(".scales")
        _mnn(graph, target, [*MNN_INT8_WEIGHTS, *MNN_SCALES, str(layers)])  # writes what its layers are
        write_scales(graph, inputs, layers, scales)
        target.unlink()
        options = [*MNN_SCALES, str(scales)]
    _mnn(graph, target, options)
    return version("MNN")


def _mnn(graph: Path, target: Path, options: list[str]) -> None:
    files = ["-f", "ONNX", "--modelFile", str(graph), "--MNNModel", str(target), "--bizCode", "gtp-export"]
    run([sys.executable, "-c", MNN_CONVERT, *files, *options], graph.parent)
    if not target.is_file():
        raise ConversionError("MNN's converter wrote no file")


def to_executorch(graph: Path, target: Path, precision: str, inputs: Path | None = None) -> str:  # noqa: ARG001
    """Convert with ExecuTorch's own exporter, from a PyTorch module of the graph's nodes (``torch_graph``)."""
    measured = [] if inputs is None else [str(inputs)]
    run_ours("gtp_exporters.converting.executorch_file", str(graph), str(target), *measured)
    return version("executorch")


def to_coreml(graph: Path, target: Path, precision: str) -> str:
    """Convert with coremltools, as ``to_executorch``."""
    run_ours("gtp_exporters.converting.coreml_file", str(graph), str(target), precision)
    return version("coremltools")


def _installed(extra: Extra) -> Callable[[Progress], None]:
    """Return a check of a converter that comes with an extra."""

    def check(progress: Progress) -> None:  # noqa: ARG001
        if extra.missing():
            raise BackendMissingError(f"{', '.join(extra.missing())} is not installed: {extra.command}")

    return check


FORMATS: dict[str, Format] = {
    "litert": Format(
        ".tflite",
        "litert",
        litert.EXTRA,
        "onnx2tf",
        ("fp32", "fp16", "int8_weights", "int8"),
        ("Gemm of computed factors as MatMul and Add", "Clip from below by Relu"),
        to_litert,
        ONNX2TF.ready,
    ),
    "qnn": Format(
        ".qnn",
        "qnn",
        qnn.EXTRA,
        "onnxruntime-qnn",
        ("fp16", "int8"),
        ("Norm of a scaled token",),
        to_qnn,
        _installed(qnn.EXTRA),
        socs=tuple(SOCS),
        images=16 if qnn.is_simulated() else None,
        judges=32 if qnn.is_simulated() else None,
    ),
    "mnn": Format(".mnn", "mnn", mnn.EXTRA, "MNN", (*MNN_WEIGHTS,), ("Gelu by Erf",), to_mnn, _installed(mnn.EXTRA)),
    "executorch": Format(
        ".pte",
        "executorch",
        executorch.EXTRA,
        "ExecuTorch",
        ("fp32", "int8"),
        (),
        to_executorch,
        _installed(executorch.EXTRA),
    ),
    "coreml": Format(
        ".mlpackage.zip", None, COREML, "coremltools", ("fp32", "fp16"), (), to_coreml, _installed(COREML)
    ),
}
