"""``is_cached`` finds weights exactly where timm finds them without a connection."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from artifacts import python
from helpers import TINY, TINY_RECIPE, tiny_weights
from safetensors.torch import save_file
from timm.models import PretrainedCfg, load_pretrained

from gtp_models import hub
from gtp_models.errors import WeightsError
from gtp_models.weights import build_model

REPOSITORY = "timm/some.tag"
COMMIT = "a" * 40


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches: the hub's and torch.hub's; no connection."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *arguments, **options: 1 / 0)
    monkeypatch.setattr("timm.models._hub.download_url_to_file", lambda *arguments, **options: 1 / 0)
    return tmp_path


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tiny_weights(), path)
    else:
        torch.save(tiny_weights(), path)


def in_hub(cache: Path, name: str, revision: str = "main") -> None:
    repository = cache / ("models--" + REPOSITORY.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(COMMIT, encoding="utf-8")
    save(repository / "snapshots" / COMMIT / name)


def timm_finds(config: PretrainedCfg) -> bool:
    """Whether timm itself loads these weights without a connection."""
    model = timm.create_model(TINY_RECIPE.timm, **TINY)
    try:
        load_pretrained(model, config.to_dict(), num_classes=TINY["num_classes"])
    except (OSError, RuntimeError, ZeroDivisionError):
        return False
    return True


HUB: dict[str, tuple[dict[str, Any], str, str, bool]] = {
    "safetensors": ({}, "model.safetensors", "main", True),
    "pickle": ({}, "pytorch_model.bin", "main", True),
    "another file": ({}, "other.bin", "main", False),
    "a named file": ({"hf_hub_filename": "other.bin"}, "other.bin", "main", True),
    "a named file's twin": ({"hf_hub_filename": "other.bin"}, "other.safetensors", "main", True),
    "a named safetensors": ({"hf_hub_filename": "other.safetensors"}, "other.safetensors", "main", True),
    "no named file": ({"hf_hub_filename": "other.bin"}, "model.safetensors", "main", False),
    "no twin of safetensors": ({"hf_hub_filename": "other.safetensors"}, "other.bin", "main", False),
    "open_clip": ({"hf_hub_filename": "open_clip_pytorch_model.bin"}, "open_clip_model.safetensors", "main", True),
    "revision": ({"hf_hub_id": f"{REPOSITORY}@v2"}, "model.safetensors", "v2", True),
    "another revision": ({"hf_hub_id": f"{REPOSITORY}@v2"}, "model.safetensors", "main", False),
    "commit": ({"hf_hub_id": f"{REPOSITORY}@{COMMIT}"}, "model.safetensors", "main", True),
    "own loader": ({"hf_hub_filename": "other.bin", "custom_load": "hf"}, "other.safetensors", "main", False),
    "the hub before a URL": ({"url": "https://host/tiny.pth"}, "model.safetensors", "main", True),
}


@pytest.mark.parametrize(("given", "name", "revision", "expected"), HUB.values(), ids=list(HUB))
def test_the_hubs_cache(caches: Path, given: dict[str, Any], name: str, revision: str, expected: bool) -> None:
    config = PretrainedCfg(**{"hf_hub_id": REPOSITORY, "num_classes": TINY["num_classes"]} | given)
    assert not hub.is_cached(config)
    in_hub(caches / "hub", name, revision)
    assert hub.is_cached(config) == expected == timm_finds(config)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/deep/tiny.pth?download=1", "tiny.pth"),
        ("https://host/tiny.pth", "other.pth"),
        ("https://host/tiny.pth", None),
    ],
)
def test_torch_hubs_cache(caches: Path, url: str, name: str | None) -> None:
    config = PretrainedCfg(url=url, num_classes=TINY["num_classes"])
    if name is not None:
        save(caches / "torch" / "checkpoints" / name)
    assert hub.is_cached(config) == timm_finds(config) == (name == "tiny.pth")


def test_a_url_with_a_name(caches: Path) -> None:
    config = PretrainedCfg(url=("https://host/weights", "tiny.npz"), custom_load=True)
    assert not hub.is_cached(config)
    (caches / "torch" / "checkpoints").mkdir(parents=True)
    (caches / "torch" / "checkpoints" / "tiny.npz").touch()
    assert hub.is_cached(config)


def test_the_old_cache_comes_first_where_timm_is_told_so(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = caches / "torch" / "checkpoints" / "tiny.pth"
    save(plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    hashed = plain.rename(plain.with_name(f"tiny-{digest}.pth"))
    config = PretrainedCfg(hf_hub_id=REPOSITORY, url=f"https://host/{hashed.name}", num_classes=TINY["num_classes"])
    assert hub.is_cached(config) == timm_finds(config) == False  # noqa: E712
    monkeypatch.setenv("TIMM_USE_OLD_CACHE", "1")
    monkeypatch.setattr("timm.models._builder._USE_OLD_CACHE", True)
    assert hub.is_cached(config) == timm_finds(config) == True  # noqa: E712
    hashed.write_bytes(b"half")
    assert hub.is_cached(config) == timm_finds(config) == False  # noqa: E712


def test_what_is_given_needs_no_connection(caches: Path) -> None:
    save(caches / "tiny.pth")
    config = PretrainedCfg(file=str(caches / "tiny.pth"), hf_hub_id=REPOSITORY, num_classes=TINY["num_classes"])
    assert hub.is_cached(config)
    assert timm_finds(config)
    assert hub.is_cached(PretrainedCfg(state_dict={"a": 1}))


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HOME", "hub"), pytest.param("HF_HUB_CACHE", "", marks=pytest.mark.full)]
)
def test_environment_variables_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, below: str
) -> None:
    in_hub(tmp_path / below, "model.safetensors")
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    fields = {
        "source": None,
        "state_dict": None,
        "file": None,
        "url": "",
        "hf_hub_filename": None,
        "custom_load": False,
    }
    config = f"types.SimpleNamespace(hf_hub_id={REPOSITORY!r}, **{fields})"
    ran = python(f"import types; from gtp_models import hub; print(hub.is_cached({config}))")
    assert ran.last == "True", ran.err


def test_torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    save(tmp_path / "hub" / "checkpoints" / "tiny.pth")
    assert hub.is_cached(PretrainedCfg(url="https://host/tiny.pth"))


def test_cached_weights_are_built_without_a_connection(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose weights have a URL alone was given up as unreachable."""
    config = PretrainedCfg(url="https://host/tiny.pth", num_classes=TINY["num_classes"])
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    monkeypatch.setattr("timm.models._builder.resolve_pretrained_cfg", lambda *arguments, **options: config)
    monkeypatch.setattr(hub, "is_reachable", lambda config: False)
    save(caches / "torch" / "checkpoints" / "tiny.pth")
    assert build_model(TINY_RECIPE).source == "pretrained"


def test_a_classifier_of_another_size_is_refused_or_marked_random(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm fills such a classifier with random values, and says nothing."""
    config = PretrainedCfg(url="https://host/tiny.pth", num_classes=TINY["num_classes"], classifier="head")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    monkeypatch.setattr("timm.models._builder.resolve_pretrained_cfg", lambda *arguments, **options: config)
    save(caches / "torch" / "checkpoints" / "tiny.pth")
    recipe = replace(TINY_RECIPE, model_args=TINY | {"num_classes": 7})
    with pytest.raises(WeightsError, match=r"--random-head"):
        build_model(recipe)
    built, again = (build_model(replace(recipe, random_head=True)) for _ in range(2))
    assert (built.source, len(built.notes)) == ("random", 1)
    assert built.sha256 == again.sha256
    assert torch.equal(built.model.pos_embed, tiny_weights()["pos_embed"])
    assert build_model(replace(TINY_RECIPE, model_args=TINY | {"num_classes": 0})).source == "pretrained"
