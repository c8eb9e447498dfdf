import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import TINY_RECIPE, tiny_weights
from safetensors.torch import save_file

from gtp_models import hub
from gtp_models.errors import ConfigError, WeightsUnavailableError
from gtp_models.weights import build_model, state_sha256

HOSTED = SimpleNamespace(hf_hub_id="timm/some")
IMAGENET = replace(TINY_RECIPE, model_args=TINY_RECIPE.model_args | {"num_classes": 1000})  # as the hub's weights have


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "is_cached", lambda config: False)
    monkeypatch.setattr(hub, "is_reachable", lambda config: False)


def test_random_is_seeded() -> None:
    first, again, other = (build_model(TINY_RECIPE, "random", seed=seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    assert (first.source, first.detail) == ("random", "seed 0")
    assert not first.model.training


def test_random_leaves_torchs_own_seed_alone() -> None:
    state = torch.get_rng_state()
    build_model(TINY_RECIPE, "random")
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments_that_timm_refuses() -> None:
    with pytest.raises(ConfigError, match=r"vit_tiny_patch16_224"):
        build_model(replace(TINY_RECIPE, model_args={"embed_dim": 25}), "random")


def test_auto_takes_a_file_in_weights(offline: None) -> None:
    Path("weights").mkdir()
    torch.save(tiny_weights(2), "weights/tiny.pth")
    built = build_model(TINY_RECIPE, "auto")
    assert (built.source, built.detail, built.sha256) == ("file", "tiny.pth", state_sha256(tiny_weights(2)))
    save_file(tiny_weights(3), "weights/tiny.safetensors")
    assert build_model(TINY_RECIPE, "auto").detail == "tiny.safetensors"
    assert build_model(TINY_RECIPE, "auto").path == Path("weights/tiny.safetensors"), "what a recipe of a search names"


def test_auto_takes_the_recipes_own_weights(offline: None) -> None:
    save_file(tiny_weights(2), "own.safetensors")
    built = build_model(replace(TINY_RECIPE, weights=Path("own.safetensors")), "auto")
    assert (built.source, built.detail) == ("pretrained", "own.safetensors")


def test_auto_is_random_without_a_hub(offline: None) -> None:
    built = build_model(IMAGENET, "auto", seed=4)
    assert (built.source, built.detail) == ("random", "seed 4")
    assert "random weights were used" in built.notes[0]
    assert "weights/tiny.safetensors" in Path(built.notes[0]).as_posix()


def test_pretrained_fails_without_a_hub(offline: None) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"--weights FILE.*--weights random"):
        build_model(IMAGENET)


def test_pretrained_weights_that_do_not_exist(offline: None) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"no pretrained .*vit_small"):
        build_model(replace(TINY_RECIPE, timm="vit_small_patch16_36x1_224", model_args={}))


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
    with pytest.raises(WeightsUnavailableError):
        build_model(IMAGENET)
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


def test_a_url_with_a_name_is_reachable(monkeypatch: pytest.MonkeyPatch, local_port: socket.socket) -> None:
    local_port.listen()
    url = f"http://127.0.0.1:{local_port.getsockname()[1]}/weights"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert hub.is_reachable(SimpleNamespace(hf_hub_id=None, url=(url, "tiny.npz")))


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
