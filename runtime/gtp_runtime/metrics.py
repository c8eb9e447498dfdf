"""Metrics of outputs without classes, and those of the user's own."""

from typing import Any

import numpy as np

from gtp_runtime.accuracy import Measure, Metric, Outputs, cosine
from gtp_runtime.errors import InputError
from gtp_runtime.messages import one_line

Own = Metric | Measure


def relative_error(dense: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return the length of each image's difference over that of the dense model's (N, ...) output, (N,) float64."""
    exact = dense.reshape(len(dense), -1).astype(np.float64)
    apart = outputs.reshape(len(outputs), -1) - exact
    return np.asarray(np.linalg.norm(apart, axis=1) / np.maximum(1e-30, np.linalg.norm(exact, axis=1)))


def correlation(dense: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each image's (N, ...) output with the dense model's, (N,) float64."""
    flat = (values.reshape(len(values), -1).astype(np.float64) for values in (dense, outputs))
    centred = [values - values.mean(1, keepdims=True) for values in flat]
    return cosine(*centred)


def _relative(dense: Outputs, outputs: Outputs, truth: np.ndarray | None) -> np.ndarray:  # noqa: ARG001
    whole = [
        np.concatenate([values.reshape(len(values), -1) for values in one.values()], 1) for one in (dense, outputs)
    ]
    return relative_error(*whole)


RELATIVE = Metric("relative error", "of the dense output", _relative, is_distance=True)


def resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (N, C, h, w) maps at (H, W) pixels, bilinear, as torch's ``interpolate(align_corners=False)``."""
    down, across = (_weights(old, new) for old, new in zip(maps.shape[2:], size, strict=True))
    return np.asarray(np.einsum("Hh,nchw,Ww->ncHW", down, maps.astype(np.float32), across, optimize=True))


def _weights(old: int, new: int) -> np.ndarray:
    """Return (new, old) weights of bilinear interpolation along one axis."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old))).astype(np.float32)


def _overlaps(dense: Outputs, outputs: Outputs, truth: np.ndarray | None) -> np.ndarray:  # noqa: ARG001
    """Return pixels of each class that the argmax and the (N, H, W) mask share, and that either has, (N, 2 C)."""
    scores = _of_form(outputs, lambda values: values.ndim == 4 and values.shape[1] > 1, "(B, classes, rows, columns)")
    assert truth is not None
    count = scores.shape[1]
    rows = []
    for one, mask in zip(scores, truth, strict=True):
        known = (mask >= 0) & (mask < count)
        real = mask[known].astype(int)
        said = resized(one[None], mask.shape)[0].argmax(0)[known]
        both = np.bincount(real[real == said], minlength=count)
        either = np.bincount(real, minlength=count) + np.bincount(said, minlength=count) - both
        rows.append(np.concatenate([both, either]))
    return np.stack(rows)


def _mean_iou(means: np.ndarray) -> float:
    """Return the mean over the classes that some mask or answer has."""
    both, either = np.split(means, 2)
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else 0.0


def _depth_errors(dense: Outputs, outputs: Outputs, truth: np.ndarray | None) -> np.ndarray:  # noqa: ARG001
    """Return the mean error of each image's depths as a share of the (N, H, W) true ones, at the same median."""
    depths = _of_form(outputs, _is_depth, "(B, rows, columns) or (B, 1, rows, columns)")
    assert truth is not None
    errors = []
    for one, real in zip(depths, truth, strict=True):
        known = np.isfinite(real) & (real > 0)
        said = resized(one.reshape(1, 1, *one.shape[-2:]), real.shape)[0, 0][known]
        middle = np.median(said)
        factor = np.median(real[known]) / middle if abs(middle) > 1e-12 else 1.0
        errors.append(np.abs(factor * said / real[known] - 1).mean())
    return np.array(errors)


def _is_depth(values: np.ndarray) -> bool:
    return values.ndim == 3 or (values.ndim == 4 and values.shape[1] == 1)


def _of_form(outputs: Outputs, fits: Any, form: str) -> np.ndarray:
    for values in outputs.values():
        if fits(values):
            return values
    shapes = ", ".join(f"{name} {values.shape[1:]}" for name, values in outputs.items())
    raise InputError(f"no output has the form {form}, which this truth needs: the model gives {shapes} an image")


MEAN_IOU = Metric("mIoU", "", _overlaps, higher_is_better=True, combine=_mean_iou)
ABS_REL = Metric("AbsRel", "of the depth", _depth_errors)
OF_TRUTH = {"masks": MEAN_IOU, "depths": ABS_REL}  # by the kind of ``images.targets``


def as_metric(own: Own) -> Metric:
    """Return a metric of the user's: a ``Metric``, or a function as ``Metric.measure``, of which less is better.

    A function may say more: its attributes ``name``, ``unit`` and ``higher_is_better`` count.

    Raises:
        InputError: something else.
    """
    if isinstance(own, Metric):
        return own
    if not callable(own):
        raise InputError(f"metric={own!r}: give a function of dense and reduced outputs and labels, or a Metric")
    name = str(getattr(own, "name", getattr(own, "__name__", type(own).__name__)))
    return Metric(one_line(name, 40), str(getattr(own, "unit", "")), own, bool(getattr(own, "higher_is_better", False)))
