"""Trains small classifiers from scratch: what ``train.py`` and ``train_digits.py`` share."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from gtp_runtime.atomic import write_bytes

BATCH = 50  # images of an evaluation at a time: their attention maps fit a CPU's caches


def train(
    model: nn.Module,
    draw: Callable[[Tensor, torch.Generator], Tensor],
    labels: Tensor,
    epochs: int,
    *,
    batch: int = 64,
    rate: float = 1e-3,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train in place: AdamW, one cosine cycle with a warm-up, label smoothing.

    Args:
        model: (B, 3, H, W) in, (B, classes) logits out.
        draw: gets the indices of some images and a generator, and returns these images, augmented.
        labels: (N,) int64, one an image.
        epochs: at least 1.
        batch: images a step.
        rate: largest learning rate.
        seed: of the order of the images and of ``draw``.
        report: called after each epoch with its number, from 1, and the loss of its last batch.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * math.ceil(len(labels) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for epoch in range(1, epochs + 1):
        model.train()
        loss = torch.zeros(())
        for chosen in torch.split(torch.randperm(len(labels), generator=generator), batch):
            logits = model(draw(chosen, generator))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        report(epoch, loss.item())
    model.eval()


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Run a model in eval mode on (N, 3, H, W) images, some at a time; (N, classes) logits."""
    model.eval()
    return torch.cat([model(some) for some in torch.split(images, BATCH)])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in 0..1 on (N, 3, H, W) images and (N,) labels."""
    return (logits_of(model, images).argmax(1) == labels).float().mean().item()


def crop_and_flip(images: Tensor, generator: torch.Generator, shift: int, flip: bool = True) -> Tensor:
    """Shift each of (B, 3, H, W) images by up to ``shift`` pixels, zeros come in; mirror every second one or so."""
    count, _, height, width = images.shape
    top, left = (torch.randint(0, 2 * shift + 1, (count, 1), generator=generator) for _ in range(2))
    rows, columns = torch.arange(height) + top, torch.arange(width).expand(count, -1)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (shift,) * 4)
    which = torch.arange(count)[:, None, None]
    return padded.movedim(1, -1)[which, rows[:, :, None], (columns + left)[:, None]].movedim(-1, 1)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights to a .safetensors file, whole or not at all."""
    write_bytes(path, save(model.state_dict()))
