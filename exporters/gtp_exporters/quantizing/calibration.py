"""Measures the ranges of values on calibration images by histograms, with ONNX Runtime's calibrators.

Images are read as they are needed and a few at a time are handed over, because the calibrators that count histograms
keep all values of what they were handed: memory does not grow with the number of images.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    EntropyCalibrater,
    PercentileCalibrater,
    TensorsData,
)

from gtp_runtime.cpus import threads_of
from gtp_runtime.errors import ImageError

RUNS = 4  # batches that are handed over at once
BINS: dict[str, dict[str, Any]] = {
    "entropy": {"num_bins": 512},
    "percentile": {"num_bins": 2048, "percentile": 99.99},
}
Batch = np.ndarray


class _Chosen:
    """What is added to a calibrator of ONNX Runtime's: only chosen values, threads, an optimised session."""

    chosen: frozenset[str]
    threads: int
    augmented_model_path: str

    def select_tensors_to_calibrate(self, model: Any) -> tuple[set[str], dict[str, Any]]:
        """Return the names of the chosen values, and what is known of all."""
        tensors, infos = super().select_tensors_to_calibrate(model)  # type: ignore[misc]
        return tensors & self.chosen, infos

    def create_inference_session(self) -> None:
        """Open the session."""
        options = SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads_of(self.threads)
        self.infer_session = InferenceSession(self.augmented_model_path, options, providers=["CPUExecutionProvider"])


class _Entropy(_Chosen, EntropyCalibrater):  # type: ignore[misc]
    pass


class _Percentile(_Chosen, PercentileCalibrater):  # type: ignore[misc]
    pass


_KINDS: dict[str, Any] = {"entropy": _Entropy, "percentile": _Percentile}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands batches over, one at a time, as the input of this name."""

    def __init__(self, name: str, batches: Sequence[Batch]) -> None:
        self._feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Batch] | None:
        return next(self._feeds, None)


def measure_ranges(
    graph: Path,
    values: Sequence[str],
    batches: Callable[[], Iterator[Batch]],
    *,
    kind: str,
    symmetric: bool,
    external: bool,
    threads: int,
) -> TensorsData:
    """Return the range of each value on the images.

    Args:
        graph: a float32 graph with inferred shapes; its folder is used for temporaries.
        values: names of the values.
        batches: returns the model's inputs, a batch at a time.
        kind: "entropy" or "percentile".
        symmetric: ranges reach as far below 0 as above.
        external: the graph's weights are in a file beside it.
        threads: 0 for all.

    Raises:
        ImageError: some value is not finite.
    """
    augmented = str(graph.with_name("ranges.onnx"))
    made = _KINDS[kind](graph, None, augmented, symmetric=symmetric, use_external_data_format=external, **BINS[kind])
    made.chosen, made.threads = frozenset(values), threads
    made.augment_graph()
    made.create_inference_session()
    name = made.infer_session.get_inputs()[0].name
    with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
        for part in _parts(batches()):
            made.collect_data(Reader(name, part))
        ranges = made.compute_data()
    _check(ranges)
    return ranges


def _parts(batches: Iterator[Batch]) -> Iterator[list[Batch]]:
    part: list[Batch] = []
    for batch in batches:
        part.append(batch)
        if len(part) == RUNS:
            yield part
            part = []
    if part:
        yield part


def _check(ranges: TensorsData) -> None:
    for name in ranges:
        low, high = ranges[name].range_value
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ImageError(f"{name} is not finite on the calibration images: check the model's weights")
