"""Trains a small ViT on scikit-learn's handwritten digits, from a fixed seed.

    python benchmarks/train_digits.py

takes about six minutes on two CPU cores. It makes what the recipe ``digits`` ships, in models/gtp_models/digits:
``weights.safetensors``, ``images/CLASS/INDEX.png`` (the 360 held-out images) and ``calibration/CLASS/INDEX.png`` (ten
training images a class). ``--recipe FILE --weights FILE`` trains another recipe's model and writes only its weights.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from training import accuracy, save_weights, train

from gtp_models import build_model, load_recipe

SEED = 0
CALIBRATION = 10  # training images a class
SIZE = 32  # pixels a side, upscaled from the data set's 8
DIGITS = Path(__file__).parents[1] / "models" / "gtp_models" / "digits"
BICUBIC = Image.Resampling.BICUBIC


def images_of(digits: np.ndarray) -> np.ndarray:
    """Upscale (N, 8, 8) intensities in 0..16 to (N, 32, 32) uint8."""
    small = np.round(digits * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(digit).resize((SIZE, SIZE), BICUBIC) for digit in small]
    return np.stack([np.asarray(image) for image in large])


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return train images, test images, train labels, test labels; 1,437 and 360 images."""
    digits = load_digits()
    parts = train_test_split(
        images_of(digits.images), digits.target, test_size=360, random_state=SEED, stratify=digits.target
    )
    return tuple(parts)


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the first ``count`` images of each class."""
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def write_images(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Write one PNG an image into a folder a class."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, optimize=True)


def to_tensor(images: np.ndarray, size: int = SIZE) -> Tensor:
    """Resize (N, 32, 32) uint8 and normalise to (N, 3, size, size) float32 in -1..1, as the recipe's preprocessing."""
    if size != SIZE:
        images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), BICUBIC)) for image in images])
    pixels = torch.from_numpy(images.astype(np.float32)) / 255
    return ((pixels - 0.5) / 0.5)[:, None].expand(-1, 3, -1, -1).contiguous()


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shear and shift a little, so that every digit stays recognisable."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)

    angle, shear, scale = uniform(-0.25, 0.25), uniform(-0.2, 0.2), uniform(0.85, 1.2)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [cos, shear - sin, uniform(-0.15, 0.15), sin, cos, uniform(-0.15, 0.15)]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images + 1, grid, align_corners=False) - 1  # +1: what comes in is background
    return moved + 0.05 * torch.randn(moved.shape, generator=generator)


def main() -> None:
    """Train, write the files and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--recipe", default="digits", help="a recipe file of another model")
    parser.add_argument("--weights", type=Path, help="where its weights go; no images are written then")
    arguments = parser.parse_args()
    train_images, test_images, train_labels, test_labels = split()
    if arguments.weights is None:
        write_images(test_images, test_labels, DIGITS / "images")
        chosen = first_of_each(train_labels, CALIBRATION)
        write_images(train_images[chosen], train_labels[chosen], DIGITS / "calibration")
    model = build_model(load_recipe(arguments.recipe), "random", seed=SEED).model
    size = model.patch_embed.img_size[0]
    images, labels = to_tensor(train_images, size), torch.from_numpy(train_labels)

    def draw(chosen: Tensor, generator: torch.Generator) -> Tensor:
        return augment(images[chosen], generator)

    def report(epoch: int, loss: float) -> None:
        if epoch % 10 == 0:
            print(f"epoch {epoch}/{arguments.epochs}: loss {loss:.3f}", flush=True)

    train(model, draw, labels, arguments.epochs, seed=SEED, report=report)
    reached = accuracy(model, to_tensor(test_images, size), torch.from_numpy(test_labels))
    output = arguments.weights or DIGITS / "weights.safetensors"
    save_weights(model, output)
    print(f"test accuracy {reached:.2%} on {len(test_labels)} images; wrote {output}")


if __name__ == "__main__":
    main()
