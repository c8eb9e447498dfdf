"""How near a reduced model's answers come to the dense model's, image by image on the same images."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Means over images, each with its standard error.

    Attributes:
        divergence: Kullback-Leibler divergence of the dense to the reduced class probabilities, in nats.
        agreement: images with the dense model's best class, in percent.
        top1: images with the right class, in percent.
        change: top-1 minus the dense model's, in points; its error is that of the paired differences.
    """

    divergence: float
    divergence_error: float
    agreement: float
    agreement_error: float
    top1: float
    top1_error: float
    change: float
    change_error: float


def compare(logits: Tensor, dense: Tensor, labels: Tensor) -> Scores:
    """Compare (N, classes) logits with the dense model's and with (N,) labels; N is at least 2."""
    answers, before = logits.argmax(1), dense.argmax(1)
    log_dense, log_reduced = (values.double().log_softmax(1) for values in (dense, logits))
    divergence = (log_dense.exp() * (log_dense - log_reduced)).sum(1).clamp(min=0)  # rounding alone falls below
    right, right_before = (100 * (found == labels).double() for found in (answers, before))
    figures = (divergence, 100 * (answers == before).double(), right, right - right_before)
    return Scores(*(number for values in figures for number in _mean_and_error(values)))


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def with_error(mean: float, error: float, digits: int) -> str:
    """Return a mean and its standard error in words."""
    return f"{mean:.{digits}f} ± {error:.{digits}f}"
