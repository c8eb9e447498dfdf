"""Compares the outputs of a graph in ONNX Runtime with known ones, or those of two graphs on seeded images."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gtp_exporters.graph.files import LARGE
from gtp_runtime.cpus import threads_of

TOLERANCE = 1e-4  # of max|output|
IMAGES = 3  # at least, in as many runs as their batch needs
LEFT = "propagated"
Answers = list[dict[str, np.ndarray]]  # outputs by name, one entry a run


@dataclass(frozen=True)
class Known:
    """Inputs of a graph, one entry a run, and the outputs that eager PyTorch gives for them."""

    inputs: list[np.ndarray]
    answers: Answers

    @classmethod
    def of(cls, images: np.ndarray, outputs: dict[str, np.ndarray], batch: int) -> "Known":
        """Share the first images out to runs of ``batch`` images; where there are fewer, they come again."""
        runs = [np.arange(run * batch, (run + 1) * batch) % len(images) for run in range(_runs(batch))]
        answers = [{name: values[chosen] for name, values in outputs.items()} for chosen in runs]
        return cls([images[chosen] for chosen in runs], answers)

    def holds(self, model: ir.Model) -> bool:
        """Whether a graph gives these outputs for every image, with the same tokens removed."""
        return all(_agree(a, b).all() for a, b in zip(self.answers, answers(model, self.inputs), strict=True))


@dataclass(frozen=True)
class Agreement:
    """Numbers of images: all, those that agree in all outputs, and ties, where different tokens are removed."""

    images: int
    agree: int
    ties: int

    @property
    def ok(self) -> bool:
        """Whether every image agrees or is a tie, and at least one agrees."""
        return self.agree > 0 and self.agree + self.ties == self.images

    @property
    def note(self) -> str:
        """A message about ties; "" if there are none."""
        if not self.ties:
            return ""
        return f"after simplification, other tokens leave in {self.ties} of {self.images} seeded images (near-ties)"


def compare(left: Answers, right: Answers) -> Agreement:
    """Compare the answers of two graphs image by image.

    A tie of two tokens may fall the other way under another order of sums. Only an image whose ``propagated`` differs
    counts as a tie, so a graph without this output has none.
    """
    if [list(outputs) for outputs in left] != [list(outputs) for outputs in right]:
        return Agreement(1, 0, 0)  # other outputs: nothing to compare
    agree = np.concatenate([_agree(a, b) for a, b in zip(left, right, strict=True)])
    ties = np.concatenate([_ties(a, b) for a, b in zip(left, right, strict=True)])
    return Agreement(len(agree), int(agree.sum()), int(ties.sum()))


def _agree(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> np.ndarray:
    """Return for each image whether all outputs are close, (B,) bool."""
    return np.all([_close(left[name], right[name]) for name in left], axis=0)


def _close(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if np.issubdtype(left.dtype, np.integer):
        return (left == right).reshape(len(left), -1).all(1)
    off = np.abs(left - right).reshape(len(left), -1).max(1)
    return np.asarray(off <= TOLERANCE * max(1e-30, float(np.abs(left).max())))


def _ties(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> np.ndarray:
    """Return for each image whether other tokens left, (B,) bool."""
    if LEFT not in left:
        return np.zeros(len(next(iter(left.values()))), bool)
    return (left[LEFT] != right[LEFT]).any(1)


def answers(model: ir.Model, inputs: list[np.ndarray] | None = None) -> Answers:
    """Run a graph on inputs (default: at least ``IMAGES`` seeded images)."""
    session = make_session(model)
    entry = session.get_inputs()[0]
    names = [output.name for output in session.get_outputs()]
    inputs = inputs or [_images(entry.shape, entry.type, seed) for seed in range(_runs(entry.shape[0]))]
    runs = [session.run(names, {entry.name: images}) for images in inputs]
    return [dict(zip(names, outputs, strict=True)) for outputs in runs]


def _runs(batch: int) -> int:
    return math.ceil(IMAGES / batch)


def _images(shape: list[int], kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "tensor(uint8)":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def make_session(model: ir.Model, threads: int = 0) -> Any:
    """Open an ONNX Runtime session on a graph in memory; large weights are handed over as they are, not copied.

    Args:
        model: the graph.
        threads: 0 for all.
    """
    import onnxruntime

    copy, options = model.clone(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_of(threads)
    options.log_severity_level = 3  # errors: warnings of unused weights say nothing to users
    options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of all weights, for a few runs
    names, values = [], []
    for name, value in copy.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= LARGE:
            names.append(name)
            values.append(onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor.numpy())))
            value.const_value = ir.ExternalTensor(
                "memory", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
            )
    options.add_external_initializers(names, values)
    proto = ir.to_proto(copy).SerializeToString()
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
