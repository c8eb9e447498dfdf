"""How close calibrated sparsity thresholds come to the exact ones; a part of the accuracy page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from training import BATCH

from gtp_exporters.subject import calibrate_on
from gtp_models import GTPConfig, make_plan, remove, trace_tokens
from gtp_models.frame.attention import Threshold
from gtp_models.frame.patch import install
from gtp_models.methods.gtp.blocks import GTPBlocks

SPARSITIES = (0.9, 0.7, 0.5)
COLUMNS = ("sparsity", "threshold", "entries kept %", "same sets %", "in common %", "logits, mean", "max", "top-1 %")


@dataclass(frozen=True)
class Closeness:
    """One threshold beside the exact one of its sparsity.

    Attributes:
        sparsity: share of the attention map that is to stay.
        threshold: "exact", "calibrated", or "none" (sparsity 1).
        num_prop: tokens that leave in each layer.
        kept_mean, kept_spread: share of entries that stay, in percent, over images, layers and heads.
        same_sets: images whose kept sets agree in all layers, in percent.
        in_common: tokens that both keep after the last layer, mean in percent.
        chance: what ``in_common`` would be by chance.
        logits_mean, logits_max: each image's largest difference over max|logit|, over images.
        top1: in percent.
    """

    sparsity: float
    threshold: str
    num_prop: int
    kept_mean: float
    kept_spread: float
    same_sets: float
    in_common: float
    chance: float
    logits_mean: float
    logits_max: float
    top1: float

    @staticmethod
    def table(rows: Sequence["Closeness"]) -> list[str]:
        cells: list[Sequence[str]] = [COLUMNS, ("---",) * len(COLUMNS)]
        for row in rows:
            shares = (f"{row.kept_mean:.1f} ± {row.kept_spread:.1f}", f"{row.same_sets:.1f}", f"{row.in_common:.1f}")
            logits = (f"{row.logits_mean:.3f}", f"{row.logits_max:.3f}")
            cells.append((str(row.sparsity), row.threshold, *shares, *logits, f"{row.top1:.2f}"))
        return ["| " + " | ".join(line) + " |" for line in cells]


class WatchedBlocks(GTPBlocks):
    """Modifications: keeps which share of the entries of each layer's map stayed, (B, heads) each."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shares: list[Tensor] = []

    def threshold(self, index: int) -> Threshold | None:
        inner = super().threshold(index)

        def watched(logits: Tensor, attention: Tensor) -> Tensor | None:
            least = inner(logits, attention) if inner else None
            stayed = attention >= (0 if least is None else least)
            self.shares.append(stayed.float().mean((-1, -2)).flatten())
            return least

        return watched


@dataclass(frozen=True)
class Seen:
    """What a setting does with N images: (N, classes) logits, (N, layers, patches) whether kept, shares of entries."""

    logits: Tensor
    kept: Tensor
    shares: Tensor


@torch.inference_mode()
def see(model: Any, images: Tensor, config: GTPConfig) -> Seen:
    """Run a model with these settings on (N, 3, H, W) images; it is left without a patch."""
    plan = make_plan(model, config)
    install(model, lambda blocks: WatchedBlocks(blocks, config, plan.shape, plan.num_prop))
    logits, kept = [], []
    for some in torch.split(images, BATCH):
        with trace_tokens(model) as trace:
            logits.append(model(some))
        masks = torch.zeros(len(trace), len(some), model.patch_embed.num_patches, dtype=torch.bool)
        for mask, step in zip(masks, trace, strict=True):
            mask.scatter_(1, step.kept, True)
        kept.append(masks.transpose(0, 1))
    shares = torch.cat(model.blocks.shares)
    remove(model)
    return Seen(torch.cat(logits), torch.cat(kept), shares)


def closeness(seen: Seen, truth: Seen, labels: Tensor, name: str, exact: GTPConfig) -> Closeness:
    """Put a setting beside the exact one; (N,) labels."""
    assert isinstance(exact.num_prop, int)
    last, other = seen.kept[:, -1], truth.kept[:, -1]
    off = (seen.logits - truth.logits).abs().amax(1) / truth.logits.abs().max()
    return Closeness(
        exact.sparsity,
        name,
        exact.num_prop,
        100 * float(seen.shares.mean()),
        100 * float(seen.shares.std()),
        100 * float((seen.kept == truth.kept).all(-1).all(-1).float().mean()),
        100 * float((last & other).sum() / other.sum()),
        100 * float(other.float().mean()),
        float(off.mean()),
        float(off.max()),
        100 * float((seen.logits.argmax(1) == labels).double().mean()),
    )


def thresholds(
    model: Any, images: Tensor, labels: Tensor, base: GTPConfig, calibration: Path | None
) -> Iterator[Closeness]:
    """Measure each sparsity with the exact threshold, the calibrated one and none."""
    none = see(model, images, base)
    for sparsity in SPARSITIES:
        exact = replace(base, sparsity=sparsity)
        calibrated = calibrate_on(model, replace(exact, threshold="calibrated"), calibration)
        truth, near = (see(model, images, config) for config in (exact, calibrated))
        for name, seen in (("exact", truth), ("calibrated", near), ("none", none)):
            yield closeness(seen, truth, labels, name, exact)
