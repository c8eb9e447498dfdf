"""benchmarks/training.py, and benchmarks/train.py on generated images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import TINY_RECIPE, noise_of, tiny_vit
from PIL import Image
from scripts import Script

from gtp_models import build_model, load_recipe

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


@pytest.fixture
def training(script: Script) -> Any:
    return script("training")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Noisy images of three colours in train/ and test/, and recipe.yaml of a tiny ViT."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 5)):
        for name, colour in COLOURS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(rng.normal(colour, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{index}.png")
    model_args = {**TINY_RECIPE.model_args, "num_classes": 3}
    recipe = {"timm": TINY_RECIPE.timm, "model_args": model_args, "labels": list(COLOURS), "gtp": {"num_prop": 3}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


def run_script(script: Script, folders: Path, output: str, *options: str) -> Path:
    named = {"data": "train", "test": "test", "recipe": "recipe.yaml", "output": output}
    paths = [part for name, path in named.items() for part in (f"--{name}", str(folders / path))]
    script("train").main([*paths, "--batch", "12", *options])
    return folders / output


def test_the_script_learns_and_its_file_is_a_recipes_weights(
    folders: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epochs", "6", "--rate", "3e-3")
    first = run_script(script, folders, "first.safetensors", *options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("48 images to learn from, 15 to test")
    assert [line.split(":")[0] for line in lines[1:-1]] == [f"epoch {number}/6" for number in range(1, 7)]
    assert float(lines[-2].split("test ")[1].split("%")[0]) > 90
    built = build_model(load_recipe(str(folders / "recipe.yaml")), str(first))
    assert (built.source, built.model.num_classes) == ("file", 3)
    second = run_script(script, folders, "second.safetensors", *options)
    assert first.read_bytes() == second.read_bytes(), "seeded"


def test_what_the_script_refuses(folders: Path, script: Script) -> None:
    for name in ("weights.pth", "missing/weights.safetensors"):
        with pytest.raises(SystemExit, match=r"\.safetensors file"):
            run_script(script, folders, name)
    shutil.rmtree(folders / "test" / "red")
    (folders / "test" / "blue").rename(folders / "test" / "violet")
    with pytest.raises(SystemExit, match="sub-folder per class"):
        run_script(script, folders, "weights.safetensors")


def test_training_reports_and_leaves_eval_mode(training: Any) -> None:
    model, images, labels = tiny_vit(), noise_of(10, 3, 32, 32), torch.arange(10) % 5
    drawn: list[list[int]] = []
    losses: list[float] = []

    def draw(chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        assert model.training
        drawn.append(chosen.tolist())
        return images[chosen]

    training.train(model, draw, labels, 12, batch=4, report=lambda epoch, loss: losses.append(loss))
    assert [len(some) for some in drawn[:3]] == [4, 4, 2]
    assert sorted([*drawn[0], *drawn[1], *drawn[2]]) == list(range(10))
    assert len(losses) == 12 and losses[-1] < losses[0]
    assert not model.training
    right = int((training.logits_of(model, images).argmax(1) == labels).sum())
    assert training.accuracy(model, images, labels) == pytest.approx(right / 10)


def test_crops_and_flips(training: Any) -> None:
    images = torch.arange(1.0, 1 + 2 * 3 * 4 * 6).view(2, 3, 4, 6)

    def moved(seed: int, **options: Any) -> torch.Tensor:
        return training.crop_and_flip(images, torch.Generator().manual_seed(seed), **options)

    assert torch.equal(moved(1, shift=0, flip=False), images)
    flipped = {bool(torch.equal(moved(seed, shift=0)[0], images[0].flip(2))) for seed in range(8)}
    kept = {bool(torch.equal(moved(seed, shift=0)[0], images[0])) for seed in range(8)}
    assert flipped == kept == {True, False}
    assert torch.equal(moved(3, shift=2), moved(3, shift=2))
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    windows = [padded[:, :, top : top + 4, left : left + 6] for top in range(3) for left in range(3)]
    for seed in range(8):
        for image, places in zip(moved(seed, shift=1, flip=False), zip(*windows, strict=True), strict=True):
            assert sum(torch.equal(image, place) for place in places) == 1


def test_weights_are_written_whole_or_not_at_all(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    training.save_weights(tiny_vit(), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        training.save_weights(tiny_vit(depth=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
