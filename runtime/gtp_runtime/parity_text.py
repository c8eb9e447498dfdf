"""A parity report in words, for the command lines."""

from collections.abc import Iterator

from gtp_runtime.parity import Parity
from gtp_runtime.text import number, percent


def headline(parity: Parity, images: str) -> str:
    """Return what was found in one line; ``images`` says where the images come from."""
    what = "feature" if parity.top1_agreement is None else "logit"
    parts = [
        None if parity.top1_agreement is None else f"top-1 agrees on {percent(parity.top1_agreement)}",
        None if parity.kept_agreement is None else f"kept sets agree on {percent(parity.kept_agreement)}",
        None if parity.receiver_agreement is None else f"receivers on {percent(parity.receiver_agreement)} of these",
        None if parity.kept_overlap in (None, 1) else f"token overlap {number(parity.kept_overlap, 3)}",
        f"{what} error {parity.max_abs_fraction_all:.1e} of max|{what}|",
        f"cosine {parity.cosine:.6f}",
    ]
    verdict = "ok" if parity.ok else "FAILED"
    return f"parity {verdict} on {parity.images} images ({images}): {', '.join(part for part in parts if part)}"


def details(parity: Parity) -> Iterator[str]:
    """Yield lines with what is to be said besides: near-ties, accuracy, notes; not the failed gates."""
    for layer in parity.layers:
        if layer.flipped_gap is not None:
            yield (
                f"  layer {layer.layer}: kept sets agree on {percent(layer.agreement)}; "
                f"those that flip were within {layer.flipped_gap:.1e} of a tie"
            )
    if parity.top1 is not None:
        dense = "" if parity.dense_top1 is None else f" (dense {percent(parity.dense_top1, 2)})"
        yield f"top-1 accuracy {percent(parity.top1, 2)}{dense} on the same images"
    if parity.dense_cosine is not None:
        yield f"mean cosine to the dense model's features: {parity.dense_cosine:.4f}"
    yield from (f"  note: {text}" for text in parity.notes)
