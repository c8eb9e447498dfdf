from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, TINY_GTP, TINY_RECIPE, VARIANTS, images_for, tiny_vit, tiny_weights
from safetensors.torch import save_file

from gtp_models.errors import WeightsError, WeightsUnavailableError
from gtp_models.frame.patch import remove
from gtp_models.methods.apply import apply
from gtp_models.state_dict import fit, read_state_dict
from gtp_models.weights import build_model, state_sha256


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.pth.tar"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrappers", [[], ["model"], ["state_dict"], ["state_dict", "model"]])
def test_file(tmp_path: Path, name: str, prefix: str, wrappers: list[str]) -> None:
    path, content = tmp_path / name, {f"{prefix}{key}": value for key, value in tiny_weights().items()}
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(reduce(lambda inner, wrapper: {wrapper: inner, "epoch": 3}, wrappers, content), path)
    built = build_model(TINY_RECIPE, str(path))
    assert built.sha256 == state_sha256(tiny_weights())
    assert (built.source, built.detail, built.notes) == ("file", path.name, ())


def test_layer_scale_by_deits_names(tmp_path: Path) -> None:
    recipe = replace(TINY_RECIPE, model_args=TINY | {"init_values": 0.1})
    state = build_model(recipe, "random", seed=1).model.state_dict()
    torch.save(
        {key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): state[key] for key in state},
        tmp_path / "w.pt",
    )
    assert build_model(recipe, str(tmp_path / "w.pt")).sha256 == state_sha256(state)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_objects_in_a_checkpoint_are_never_run(tmp_path: Path, suffix: str) -> None:
    path, created = tmp_path / f"w{suffix}", tmp_path / "created"
    torch.save({"model": tiny_weights(), "extra": Harmful(created)}, path)
    with pytest.raises(WeightsError, match=r"pickled objects are never executed"):
        build_model(TINY_RECIPE, str(path))
    assert not created.exists()
    torch.load(path, weights_only=False)
    assert created.exists()  # it would have been


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {"model": {"a": 1}}])
def test_what_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds no state dict: save model.state_dict\(\)"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.pth.tar"])
def test_broken_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"no weights file .*give one that exists"):
        build_model(TINY_RECIPE, str(tmp_path / name))
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match=r"cannot read weights from"):
        build_model(TINY_RECIPE, str(tmp_path / name))


@pytest.mark.parametrize("weights", ["w.npz", "w.tar", "pretraind"])
def test_other_formats(weights: str) -> None:
    with pytest.raises(WeightsError, match=r"is not a weights file: give \.safetensors, \.pth, \.pt or \.pth\.tar"):
        build_model(TINY_RECIPE, weights)


def test_weights_of_another_model(tmp_path: Path) -> None:
    state = tiny_weights()
    state["head.weight"] = torch.zeros(7, 24)
    state["head_dist.bias"] = state.pop("head.bias")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"another model: missing head.bias; unexpected head_dist.bias; ") as caught:
        build_model(TINY_RECIPE, str(tmp_path / "w.safetensors"))
    assert "head.weight is (7, 24), the model has (5, 24)" in str(caught.value)
    assert "more" not in str(caught.value)


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"and \d+ more$"):
        build_model(TINY_RECIPE, str(tmp_path / "w.safetensors"))


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    save_file(tiny_weights(), tmp_path / "w.safetensors")
    built = build_model(TINY_RECIPE.sized((32, 48)), str(tmp_path / "w.safetensors"))
    assert built.notes == ("position embeddings resampled from 16 to 24 patches",)
    assert built.model.pos_embed.shape == (1, 25, 24)
    assert torch.equal(built.model.pos_embed[:, 0], tiny_weights()["pos_embed"][:, 0])
    assert built.model(torch.zeros(1, 3, 32, 48)).shape == (1, 5)


RESIZED = (
    "class token",
    "no class token",
    "registers",
    "distilled",
    "pre-norm",
)  # pre-norm: positions of patches alone


@pytest.mark.parametrize("kind", RESIZED)
@pytest.mark.parametrize("size", [(32, 48), (64, 64)])
def test_a_checkpoint_of_another_size_is_resampled_as_timm_does(kind: str, size: tuple[int, int]) -> None:
    small, large = tiny_vit(**VARIANTS[kind]), tiny_vit(**VARIANTS[kind], img_size=size)
    state, notes = fit(small.state_dict(), large)
    assert notes == (f"position embeddings resampled from 16 to {large.patch_embed.num_patches} patches",)
    large.load_state_dict(state)
    small.set_input_size(size)
    images = images_for(large)
    torch.testing.assert_close(large(images), small(images))
    patched = apply(large, replace(TINY_GTP, num_prop=0))
    assert torch.equal(patched(images), remove(large)(images))
    assert apply(large, TINY_GTP)(images).shape == (2, 5)
