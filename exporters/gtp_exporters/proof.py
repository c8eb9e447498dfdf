"""Proves an export before it replaces an earlier one: validates it against the reference, times it, explains errors."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from gtp_exporters.draft import Draft
from gtp_exporters.errors import ExportError
from gtp_exporters.float_twin import Twins, largest_of, read_twins, values_of
from gtp_exporters.graph.structure import PRODUCTS, constant_products
from gtp_runtime import Latency, Model, Parity, benchmark
from gtp_runtime.backends import find_backend, make_options
from gtp_runtime.backends.openvino import EXTRA
from gtp_runtime.errors import GATE_FAILED
from gtp_runtime.latency import latency_records, measured_by
from gtp_runtime.manifest import FILE_NAME
from gtp_runtime.messages import Progress
from gtp_runtime.parity import compare, limits_of
from gtp_runtime.reference import Reference

SECONDS = 3.0  # of timing, for all files together
SHOWN = 3  # layers that an error names
FP16_MAX = float(np.finfo(np.float16).max)
UNPROVEN = (
    "ONNX Runtime has no bf16 kernels for CPUs and OpenVINO is not installed, so the export was not checked: "
    f"{EXTRA.command}"
)


@dataclass(frozen=True)
class Proof:
    """The result of proving an export.

    Attributes:
        parity: parity of the model, the quantised one if there is one; its problems include those of the other files.
        latency: one entry per file, the dense baseline first.
        note: why nothing was checked; ``parity`` is then None.
        backend: the runtime that ran the files.
        results: what the manifest keeps of it, by kind, then by file.
    """

    parity: Parity | None
    latency: list[Latency]
    note: str = ""
    backend: str = "onnxruntime"
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerError:
    """The largest error of a layer's output over images, relative to its size in float32; None if it is not finite."""

    layer: str
    error: float | None

    @property
    def text(self) -> str:
        """The error for people."""
        return "not finite" if self.error is None else f"{self.error:.2g}"


class ParityFailedError(ExportError):
    """The outputs of the exported graphs differ from those of eager PyTorch.

    Attributes:
        proof: the measured values; of a model whose own answers are not finite, its parity with itself.
        errors: how far each layer is from float32, the furthest first; none for float32 and bf16.
    """

    exit_code = GATE_FAILED

    def __init__(self, message: str, proof: Proof, errors: Sequence[LayerError] = ()) -> None:
        super().__init__(message)
        self.proof = proof
        self.errors = list(errors)


def prove(draft: Draft, threads: int, progress: Progress) -> Proof:
    """Validate and time the graphs of an export; one in fp16 must not overflow either."""
    backend = next((name for name in map(draft.prover, draft.graphs) if name != "onnxruntime"), "onnxruntime")
    if backend == "openvino" and EXTRA.missing():
        return Proof(None, [], UNPROVEN)
    with ExitStack() as stack:
        models = [stack.enter_context(_Written.open(draft, name, backend, threads)) for name in draft.graphs]
        return replace(_prove(models, progress, _too_large(draft, threads)), backend=backend)


def prove_files(
    draft: Draft, names: Sequence[str], backend: str, threads: int, progress: Progress, images: int | None = None
) -> Proof:
    """Validate and time files of an export, the dense baseline first, with one backend.

    Args:
        draft: the export.
        names: of the files.
        backend: that runs them.
        threads: 0 for all.
        progress: told what is being done.
        images: of the parity pack, that many, for a simulator, which is not timed; None for all.
    """
    if images is not None:
        draft = replace(draft, reference=draft.reference.sample(images))
    with ExitStack() as stack:
        models = [stack.enter_context(_Written.open(draft, name, backend, threads)) for name in names]
        return replace(_prove(models, progress, [], timed=images is None), backend=backend)


def share_alike(draft: Draft, name: str, backend: str, threads: int) -> float:
    """Return the share of the reference's images that a file answers as eager PyTorch, within the error of parity.

    It stands for the kept sets of a file without trace outputs: a near-tie that flips changes more than rounding does.
    """
    expected, limit = draft.reference.outputs, limits_of(draft.manifest.entry(name).precision).error
    with _Written.open(draft, name, backend, threads) as model:
        answers = model.run_all(model.prepare(draft.reference.images))
    alike = [_image_errors(values, answers[name]) <= limit * np.abs(values).max() for name, values in expected.items()]
    return float(np.all(alike, axis=0).mean())


def _image_errors(expected: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return the largest error of each image of (N, ...) outputs, (N,)."""
    return np.abs(answers - expected).reshape(len(expected), -1).max(1)


class _Written(Model):
    """A file that was just written: what its manifest says of it is true, and its parity pack is at hand."""

    _reference: Reference

    @classmethod
    def open(cls, draft: Draft, name: str, backend: str, threads: int) -> "_Written":
        path = draft.directory / name
        spec = find_backend(path, backend)
        options = make_options(spec, {"threads": threads} if "threads" in spec.option_names else {})
        model = cls(path, draft.manifest, spec.open(path, draft.manifest.entry(name), options), options)
        model._reference = draft.reference
        return model

    def reference(self) -> Reference:
        """Return the parity pack."""
        return self._reference


def check_reference(reference: Reference, weights: str) -> None:
    """Raise ``ParityFailedError`` if the outputs of the eager model are not finite: they cannot prove parity.

    Args:
        reference: the outputs of the eager model.
        weights: where its weights come from, for the message.
    """
    for outputs in (reference.outputs, reference.dense_outputs or {}):
        if all(np.isfinite(values).all() for values in outputs.values()):
            continue
        parity = compare(outputs, outputs, classes=reference.output == "logits" and reference.answers.ndim == 2)
        raise ParityFailedError(
            "the outputs of the model in eager PyTorch are not finite, so parity cannot be proven and nothing was "
            f"written: check its weights ({weights})",
            Proof(parity, []),
        )


def check_proof(proof: Proof, draft: Draft, directory: Path, threads: int) -> None:
    """Raise ``ParityFailedError`` if a gate failed; in fp16 and in few bits it names the layers that lose most.

    Args:
        proof: what was measured.
        draft: the new export.
        directory: the artifact directory that it would replace.
        threads: 0 for all.
    """
    if proof.parity is None or proof.parity.ok:
        return
    errors = layer_errors(draft, threads)
    named = ", ".join(f"{layer.layer} ({layer.text})" for layer in errors[:SHOWN])
    earlier = (
        "the earlier export there is unchanged" if (directory / FILE_NAME).exists() else "nothing was written there"
    )
    raise ParityFailedError(
        f"the exported graphs failed their parity gates ({'; '.join(proof.parity.problems)}), so they were not put "
        f"into {directory}: {earlier}; {f'the layers furthest from fp32: {named}; ' if named else ''}"
        "--no-check exports without proof",
        proof,
        errors,
    )


def _too_large(draft: Draft, threads: int) -> list[str]:
    layers = overflows(draft, threads)
    return [f"fp16 ends at 65,504, and {', '.join(layers[:SHOWN])}: use bf16"] if layers else []


def _prove(models: Sequence[Model], progress: Progress, problems: list[str], timed: bool = True) -> Proof:
    reports = [model.validate(progress) for model in models]
    latency = benchmark(models, SECONDS, progress) if timed else []
    names = [model.path.name for model in models]
    results = {
        "parity": {
            name: report.to_dict() | measured_by(model)
            for name, report, model in zip(names, reports, models, strict=True)
        },
        "latency": dict(zip(names, latency_records(models, latency), strict=True)) if timed else {},
    }
    others = [
        f"{_called(model)}: {problem}"
        for model, report in zip(models[:-1], reports[:-1], strict=True)
        for problem in report.problems
    ]
    parity = replace(reports[-1], problems=[*problems, *reports[-1].problems, *others])
    named = [replace(result, file=model.path.name) for model, result in zip(models, latency, strict=timed)]
    return Proof(parity, named, results=results)


def _called(model: Model) -> str:
    is_baseline = model.entry.role == "dense" and model.entry.quantization is None
    return "dense baseline" if is_baseline else model.path.name


def layer_errors(draft: Draft, threads: int) -> list[LayerError]:
    """Compare the outputs of the layers with float32's on images of the reference, the furthest first.

    Args:
        draft: an export that is not in its place yet.
        threads: 0 for all.

    Returns:
        One entry for each layer; none for an export in float32 or bf16, which does not run here, and none without a
        dense graph: in a reduced one, near-ties that flip hide what each layer loses.
    """
    twins = read_twins(draft)
    if twins is None or twins.role != "dense":
        return []
    labels = {product.node: product.label for product in constant_products(twins.float, embedding=True)}
    outputs = {str(node.outputs[0].name): labels[node.name] for node in twins.float.graph if node.name in labels}
    runs = (values_of(model, list(outputs), twins.inputs, threads) for model in (twins.float, twins.lowered))
    errors: dict[str, float] = {}
    for expected, actual in zip(*runs, strict=True):
        for layer, error in zip(outputs.values(), map(_error, expected, actual), strict=True):
            errors[layer] = max(error, errors.get(layer, 0))
    ranked = sorted(errors.items(), key=lambda item: -item[1])
    return [LayerError(layer, error if np.isfinite(error) else None) for layer, error in ranked]


@np.errstate(invalid="ignore", over="ignore")
def _error(expected: np.ndarray, actual: np.ndarray) -> float:
    left, right = (values.astype(np.float64).reshape(len(values), -1) for values in (expected, actual))
    error = np.linalg.norm(left - right, axis=1) / np.maximum(np.linalg.norm(left, axis=1), 1e-30)
    return float(np.nan_to_num(error, nan=np.inf).max())


def overflows(draft: Draft, threads: int) -> list[str]:
    """Return, for an export in fp16, where values stand that fp16 cannot hold, with the largest of each place.

    Every value that the graph has in fp16 counts: products, what is cast for them (the outputs of normalisation), and
    what stands between (gated MLPs). Measured in float32 on images of the reference, because ONNX Runtime computes fp16
    graphs in float32 on CPUs, where nothing overflows.

    Args:
        draft: an export that is not in its place yet.
        threads: 0 for all.
    """
    twins = read_twins(draft)
    if twins is None or twins.precision != "fp16":
        return []
    places = _places(twins)
    largest = largest_of(twins.float, list(places), twins.inputs, threads)
    worst: dict[str, float] = {}
    for name, place in places.items():
        if not largest[name] <= FP16_MAX:  # also what is not a number
            worst[place] = max(largest[name], worst.get(place, 0.0))
    return [f"{place} reaches {value:.2g}" for place, value in worst.items()]


def _places(twins: Twins) -> dict[str, str]:
    """Return what is fp16 in the lowered graph by its name in the float one, with the layer where it stands."""
    known = {product.node: product.label for product in constant_products(twins.float, embedding=True)}
    there = {value.name for node in twins.float.graph for value in node.outputs}
    there |= {value.name for value in twins.float.graph.inputs}
    places, last = {}, "the input"
    for node in twins.lowered.graph:
        label = known.get(str(node.name), "")
        last = label or (last.removesuffix(".qkv") if node.op_type in PRODUCTS else last)
        for value in node.outputs:
            name = str(value.name).removesuffix(".inner").removesuffix(".low")  # graph outputs, and casts
            if value.dtype == ir.DataType.FLOAT16 and name in there:
                places[name] = next(
                    (known[str(user.name)] for user in value.consumers() if str(user.name) in known), last
                )
    return places
