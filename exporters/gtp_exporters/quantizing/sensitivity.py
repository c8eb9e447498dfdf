"""What each layer loses alone, and which layers to keep in float32 until the gate passes."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from gtp_exporters.agreement import make_session
from gtp_exporters.quantizing.quantizer import Source
from gtp_runtime.measures import cosine, divergence
from gtp_runtime.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True)
class LayerLoss:
    """What a layer costs when it alone is int8: mean divergence in nats, or 1 - cosine for features."""

    layer: str
    loss: float


def measure_losses(source: Source, batches: Sequence[np.ndarray], threads: int, progress: Progress) -> list[LayerLoss]:
    """Quantise one layer at a time and compare with float32; the worst first.

    Args:
        source: calibrated.
        batches: inputs of the graph.
        threads: 0 for all.
        progress: told the share done.
    """
    labels = source.labels
    expected = _answers(source.model, batches, threads)
    found = []
    for done, label in enumerate(labels):
        progress("measuring what each layer loses", done / len(labels))
        answers = _answers(source.quantized([label]), batches, threads)
        found.append(LayerLoss(label, _distance(expected, answers, source.model.graph.outputs[0].name == "logits")))
    return sorted(found, key=lambda layer: -layer.loss)


def _answers(model: ir.Model, batches: Sequence[np.ndarray], threads: int) -> np.ndarray:
    session = make_session(model, threads)
    name, first = session.get_inputs()[0].name, session.get_outputs()[0].name
    return np.concatenate([session.run([first], {name: batch})[0] for batch in batches])


def _distance(expected: np.ndarray, answers: np.ndarray, classes: bool) -> float:
    apart = divergence(expected, answers) if classes else 1 - cosine(expected, answers)
    return float(np.nan_to_num(apart, nan=np.inf).mean())


def fewest(ranked: Sequence[str], attempt: Callable[[Collection[str]], T], passes: Callable[[T], bool]) -> T:
    """Return the attempt that passes with the fewest of the labels left out, the first of them first.

    The number is doubled until an attempt passes, then halved in between; all left out must pass.
    """
    below, count = 0, 1
    tried = attempt(ranked[:1])
    while not passes(tried) and count < len(ranked):
        below, count = count, min(2 * count, len(ranked))
        tried = attempt(ranked[:count])
    while count - below > 1:
        middle = (below + count) // 2
        again = attempt(ranked[:middle])
        if passes(again):
            tried, count = again, middle
        else:
            below = middle
    return tried
