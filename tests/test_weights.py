import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gtp_models import hub
from gtp_models.errors import ConfigError, WeightsError, WeightsUnavailableError
from gtp_models.recipes import Recipe
from gtp_models.state_dict import read_state_dict
from gtp_models.weights import build_model, state_sha256

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
HOSTED = SimpleNamespace(hf_hub_id="timm/some")
RECIPE = Recipe("tiny", "a tiny ViT", "vit_tiny_patch16_224", model_args=TINY)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_cached", lambda config: False)
    monkeypatch.setattr(hub, "is_reachable", lambda config: False)


def weights_of(seed: int = 1) -> dict[str, Tensor]:
    state: dict[str, Tensor] = build_model(RECIPE, "random", seed=seed).model.state_dict()
    return state


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_random_is_seeded() -> None:
    first, again, other = (build_model(RECIPE, "random", seed=seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    assert (first.source, first.detail) == ("random", "seed 0")
    assert not first.model.training


def test_random_leaves_torchs_own_seed_alone() -> None:
    state = torch.get_rng_state()
    build_model(RECIPE, "random")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrappers", [[], ["model"], ["state_dict"], ["state_dict", "model"]])
def test_file(tmp_path: Path, name: str, prefix: str, wrappers: list[str]) -> None:
    path, content = tmp_path / name, {f"{prefix}{key}": value for key, value in weights_of().items()}
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(reduce(lambda inner, wrapper: {wrapper: inner, "epoch": 3}, wrappers, content), path)
    built = build_model(RECIPE, str(path))
    assert built.sha256 == state_sha256(weights_of())
    assert (built.source, built.detail, built.notes) == ("file", path.name, ())


def test_layer_scale_by_deits_names(tmp_path: Path) -> None:
    recipe = replace(RECIPE, model_args=TINY | {"init_values": 0.1})
    state = build_model(recipe, "random", seed=1).model.state_dict()
    torch.save(
        {key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): state[key] for key in state},
        tmp_path / "w.pt",
    )
    assert build_model(recipe, str(tmp_path / "w.pt")).sha256 == state_sha256(state)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_objects_in_a_checkpoint_are_never_run(tmp_path: Path, suffix: str) -> None:
    path, created = tmp_path / f"w{suffix}", tmp_path / "created"
    torch.save({"model": weights_of(), "extra": Harmful(created)}, path)
    with pytest.raises(WeightsError, match="objects in a checkpoint are never run"):
        build_model(RECIPE, str(path))
    assert not created.exists()
    torch.load(path, weights_only=False)
    assert created.exists()  # it would have been


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {"model": {"a": 1}}])
def test_what_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds no state dict: save model.state_dict\(\)"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_broken_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsUnavailableError, match="no weights file .*give one that exists"):
        build_model(RECIPE, str(tmp_path / name))
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match="cannot read weights from"):
        build_model(RECIPE, str(tmp_path / name))


@pytest.mark.parametrize("weights", ["w.npz", "pretraind"])
def test_other_formats(weights: str) -> None:
    with pytest.raises(WeightsError, match=r"no weights file: give \.safetensors, \.pth or \.pt"):
        build_model(RECIPE, weights)


def test_weights_of_another_model(tmp_path: Path) -> None:
    state = weights_of()
    state["head.weight"] = torch.zeros(7, 24)
    state["head_dist.bias"] = state.pop("head.bias")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="another model: missing head.bias; unexpected head_dist.bias; ") as caught:
        build_model(RECIPE, str(tmp_path / "w.safetensors"))
    assert "head.weight is (7, 24), the model has (5, 24)" in str(caught.value)
    assert "more" not in str(caught.value)


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"and \d+ more$"):
        build_model(RECIPE, str(tmp_path / "w.safetensors"))


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    save_file(weights_of(), tmp_path / "w.safetensors")
    built = build_model(RECIPE, str(tmp_path / "w.safetensors"), img_size=(32, 48))
    assert built.notes == ("position embeddings resampled from 16 to 24 patches",)
    assert built.model.pos_embed.shape == (1, 25, 24)
    assert torch.equal(built.model.pos_embed[:, 0], weights_of()["pos_embed"][:, 0])
    assert built.model(torch.zeros(1, 3, 32, 48)).shape == (1, 5)


def test_image_size_that_timm_refuses() -> None:
    with pytest.raises(ConfigError, match="timm cannot make vit_tiny_patch16_224"):
        build_model(replace(RECIPE, model_args={"embed_dim": 25}), "random")


def test_auto_takes_a_file_in_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    torch.save(weights_of(2), "weights/tiny.pth")
    built = build_model(RECIPE, "auto")
    assert (built.source, built.detail, built.sha256) == ("file", "tiny.pth", state_sha256(weights_of(2)))
    save_file(weights_of(3), "weights/tiny.safetensors")
    assert build_model(RECIPE, "auto").detail == "tiny.safetensors"


def test_auto_takes_the_recipes_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(weights_of(2), "own.safetensors")
    built = build_model(replace(RECIPE, weights=tmp_path / "own.safetensors"), "auto")
    assert (built.source, built.detail) == ("pretrained", "own.safetensors")


def test_auto_is_random_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    monkeypatch.chdir(tmp_path)
    built = build_model(RECIPE, "auto", seed=4)
    assert (built.source, built.detail) == ("random", "seed 4")
    assert "random weights were used" in built.notes[0]
    assert "weights/tiny.safetensors" in Path(built.notes[0]).as_posix()


def test_pretrained_fails_without_a_hub(offline: None) -> None:
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched.*--weights FILE.*--weights random"):
        build_model(RECIPE)


def test_pretrained_weights_that_do_not_exist(offline: None) -> None:
    with pytest.raises(WeightsUnavailableError, match="timm has no pretrained weights for vit_small"):
        build_model(replace(RECIPE, timm="vit_small_patch16_36x1_224", model_args={}))


@pytest.fixture
def local_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub on this machine that does not listen yet."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port.getsockname()[1]}")
        yield port


def test_an_unreachable_hub_is_given_up_fast(monkeypatch: pytest.MonkeyPatch, local_port: socket.socket) -> None:
    monkeypatch.setattr(hub, "is_cached", lambda config: False)
    start = time.monotonic()
    assert build_model(RECIPE, "auto").source == "random"
    assert time.monotonic() - start < hub.TIMEOUT


def test_a_name_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, local_port: socket.socket) -> None:
    monkeypatch.setattr(hub, "TIMEOUT", 0.1)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: (time.sleep(1), socket.socket())[1])
    start = time.monotonic()
    assert not hub.is_reachable(HOSTED)
    assert time.monotonic() - start < 0.9


def test_a_hub_that_listens_is_reachable(local_port: socket.socket) -> None:
    local_port.listen()
    assert hub.is_reachable(HOSTED)


def test_hash_changes_with_content_name_shape_and_type() -> None:
    state = {"a": torch.zeros(4), "b": torch.ones(1)}
    variants = [
        state,
        state | {"a": torch.full((4,), 1e-30)},
        {"c": state["a"], "b": state["b"]},
        state | {"a": torch.zeros(2, 2)},
        state | {"a": torch.zeros(4, dtype=torch.int32)},
        state | {"a": torch.zeros(8, dtype=torch.bfloat16)},
    ]
    assert len({state_sha256(variant) for variant in variants}) == len(variants)
    assert state_sha256(dict(reversed(state.items()))) == state_sha256(state)
    assert state_sha256({"scalar": torch.tensor(1.0)}) != state_sha256({"scalar": torch.tensor(2.0)})
