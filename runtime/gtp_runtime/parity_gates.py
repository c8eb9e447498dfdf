"""The limits of parity, and the gates that fail."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gtp_runtime.errors import InputError

if TYPE_CHECKING:
    from gtp_runtime.parity import Parity

COSINE_LIMIT = 0.999
KL_LIMIT = 0.01  # nats
TOP1_LIMIT = 0.99
# The same tokens leave in the same layers, corrected for chance. Measured likewise: fp32 and fp16 0.97 to 1, bf16 0.7
# to 1; chance gives 0.
OVERLAP_LIMIT = 0.5


@dataclass(frozen=True)
class Limits:
    """What parity allows.

    Attributes:
        error: largest error as a fraction of max|logit|, on images whose kept sets agree.
        kept: smallest share of images, 0..1, whose kept sets agree in every layer.
        overlap: smallest share of tokens, corrected for chance, that leave in the same layers.
        cosine: smallest cosine similarity of an image's answers.
        kl: largest divergence of an image's class probabilities, in nats.
        top1: smallest share of images with the same best class.
    """

    error: float
    kept: float
    overlap: float = OVERLAP_LIMIT
    cosine: float = COSINE_LIMIT
    kl: float = KL_LIMIT
    top1: float = TOP1_LIMIT


# The shares of the images whose kept sets agree in every layer: a correct file flips near-ties alone, and random
# weights have many. Measured on DeiT-Ti, DeiT-S, ViT-L (random weights, 48 photographs) and digits: fp32 92 to 100 %,
# fp16 77 to 98 %, bf16 0 to 72 %. So fp32 and fp16 leave room for chance in a pack of 8 images, and in bf16, where a
# dozen layers of near-ties let no image agree, only OVERLAP_LIMIT holds. A file that chooses other tokens agrees on no
# image. Of an image whose near-ties flip, the answers say little. In bf16 through OpenVINO on digits and the CIFAR-10
# ViT, at 0.61 to 0.75 of the MACs, the smallest cosine is 0.9990 and the largest divergence 0.0017 where kept sets
# agree, but 0.925 and 0.109 where they do not, at a mean of 0.002 and 97 to 100 % agreement in top-1.
# int8 is compared with fp32 when it is made, by
# means over many images (gtp_exporters.quantizing.gate); the smallest cosine of digits' paper form is 0.92. Weights in
# few bits flip as many: where kept sets agree, their errors on digits are 0.02 (8 bits) and 0.07 (4 bits).
LIMITS = {
    "fp32": Limits(1e-3, 0.75),
    "fp16": Limits(3e-2, 0.5),
    "bf16": Limits(1e-1, 0.0, cosine=0.9, kl=0.2, top1=0.95),
    "int8": Limits(5e-1, 0.0, cosine=0.8, kl=1.0, top1=0.95),
    "int8_weights": Limits(1e-1, 0.0, cosine=0.8, kl=1.0, top1=0.95),
    "int4_weights": Limits(3e-1, 0.0, cosine=0.8, kl=1.0, top1=0.95),
}


def limits_of(precision: str, min_kept: float | None = None) -> Limits:
    """Return the limits of a precision; ``min_kept`` replaces that of the kept sets.

    Raises:
        InputError: an unknown precision, a ``min_kept`` that is no number in 0..1.
    """
    if precision not in LIMITS:
        raise InputError(f"no parity limits for precision {precision!r}: choose one of {', '.join(LIMITS)}")
    if min_kept is None:
        return LIMITS[precision]
    if isinstance(min_kept, bool) or not isinstance(min_kept, int | float) or not 0 <= min_kept <= 1:
        raise InputError(f"min_kept={min_kept!r}: give a share of the images, 0 to 1")
    return replace(LIMITS[precision], kept=float(min_kept))


def failed_gates(parity: "Parity", limits: Limits, *, finite: bool, kept_asked: bool) -> list[str]:
    """Return a message for each gate that fails.

    Args:
        parity: the measured values.
        limits: the limits.
        finite: whether every output is finite.
        kept_asked: whether the user gave the limit of the kept sets, which must then apply.
    """
    what = "feature" if parity.kl is None else "logit"
    error, kept = parity.max_abs_fraction, parity.kept_agreement
    gates = (
        (finite, f"some {what}s are not finite"),
        (kept is not None or not kept_asked, "no kept sets to compare, so omit min_kept (--min-kept)"),
        (
            kept is None or kept >= limits.kept,
            f"kept sets agree on {_share(kept)} of the images, limit {limits.kept:.0%}",
        ),
        (
            parity.receiver_agreement is None or parity.receiver_agreement >= limits.kept,
            f"receivers agree on {_share(parity.receiver_agreement)} of the images whose kept sets do, "
            f"limit {limits.kept:.0%}",
        ),
        (
            parity.kept_overlap is None or parity.kept_overlap >= limits.overlap,
            f"different tokens are removed: overlap {_number(parity.kept_overlap)} (0 is chance), "
            f"limit {limits.overlap:g}",
        ),
        (
            error is None or error <= limits.error,
            f"{what} error {_number(error)} of max|{what}| where kept sets agree, limit {limits.error:g}",
        ),
        (parity.cosine >= limits.cosine, f"cosine {parity.cosine:.5f}, limit {limits.cosine}"),
        (
            parity.kl is None or parity.kl <= limits.kl,
            f"KL divergence {_number(parity.kl, 3)} nats, limit {limits.kl}",
        ),
        (
            parity.top1_agreement is None or parity.top1_agreement >= limits.top1,
            f"top-1 agreement {_share(parity.top1_agreement)}, limit {limits.top1:.0%}",
        ),
    )
    return [problem for held, problem in gates if not held]


def _share(value: float | None) -> str:
    return f"{math.nan if value is None else value:.1%}"


def _number(value: float | None, digits: int = 2) -> str:
    return f"{math.nan if value is None else value:.{digits}g}"
