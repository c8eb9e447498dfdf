"""Trains a small ViT from a folder of images, one sub-folder per class; the recipe file holds the architecture.

    python benchmarks/train.py --data TRAIN --test TEST --output weights.safetensors [--recipe benchmarks/cifar10.yaml]

The weights are a recipe's `--weights FILE`: `gtp-export export benchmarks/cifar10.yaml --weights weights.safetensors`,
`python benchmarks/run.py accuracy benchmarks/cifar10.yaml --weights weights.safetensors --data TEST`.
Seeded: the same images, settings and threads give the same file on the same machine.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from folders import labelled
from torch import Tensor
from training import accuracy, crop_and_flip, save_weights, train

from gtp_exporters.subject import preprocessing_of
from gtp_models import build_model, load_recipe


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training images, one sub-folder per class")
    parser.add_argument("--test", type=Path, required=True, help="held-out images, likewise; measured, never learned")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--recipe", default=str(Path(__file__).parent / "cifar10.yaml"), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=128, help="images a step; default: %(default)s")
    parser.add_argument("--rate", type=float, default=1e-3, help="largest learning rate; default: %(default)s")
    parser.add_argument("--shift", type=int, help="pixels that a crop may be off; an eighth of the height without")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True, help="mirror; not for digits")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    if given.output.suffix != ".safetensors" or not given.output.parent.is_dir():
        raise SystemExit(f"--output {given.output}: name a .safetensors file in a folder that exists")
    torch.set_num_threads(given.threads)
    recipe = load_recipe(given.recipe)
    built = build_model(recipe, "random", seed=given.seed)
    model = built.model
    preprocessing = preprocessing_of(model)
    (images, labels), (test, test_labels) = (labelled(folder, built) for folder in (given.data, given.test))
    test_pixels = torch.from_numpy(preprocessing.normalise(test.pixels))
    shift = preprocessing.crop[0] // 8 if given.shift is None else given.shift
    begin = time.perf_counter()
    print(f"{recipe.title}: {len(labels)} images to learn from, {len(test_labels)} to test", flush=True)

    def draw(chosen: Tensor, generator: torch.Generator) -> Tensor:
        some = torch.from_numpy(preprocessing.normalise(images.pixels[chosen.numpy()]))
        return crop_and_flip(some, generator, shift, given.flip)

    def report(epoch: int, loss: float) -> None:
        reached, seconds = accuracy(model, test_pixels, test_labels), time.perf_counter() - begin
        print(f"epoch {epoch}/{given.epochs}: loss {loss:.3f}, test {reached:.2%}, {seconds:.0f} s", flush=True)

    settings = {"batch": given.batch, "rate": given.rate, "seed": given.seed}
    train(model, draw, labels, given.epochs, **settings, report=report)
    save_weights(model, given.output)
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
