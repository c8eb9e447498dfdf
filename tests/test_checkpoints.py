import argparse
import re
import zipfile
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import TINY, TINY_GTP, TINY_RECIPE, VARIANTS, images_for, tiny_vit, tiny_weights
from safetensors.torch import save_file

from gtp_models.checkpoint_fit import resample
from gtp_models.checkpoints import Checkpoint, read_checkpoint
from gtp_models.errors import WeightsError, WeightsUnavailableError
from gtp_models.frame.patch import remove
from gtp_models.methods.apply import apply
from gtp_models.recipes import Recipe
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
    with pytest.raises(WeightsError):
        build_model(TINY_RECIPE, str(path))
    assert not created.exists()
    torch.load(path, weights_only=False)
    assert created.exists()  # it would have been


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {"model": {"a": 1}}])
def test_what_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.pth.tar"])
def test_broken_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsUnavailableError):
        build_model(TINY_RECIPE, str(tmp_path / name))
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(WeightsError):
        build_model(TINY_RECIPE, str(tmp_path / name))


@pytest.mark.parametrize("weights", ["w.npz", "w.tar", "pretraind"])
def test_other_formats(weights: str) -> None:
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        build_model(TINY_RECIPE, weights)


def test_a_misfit_shows_names_of_both_and_counts(tmp_path: Path) -> None:
    state = tiny_weights()
    state["blocks.0.attn.proj.weight"] = torch.zeros(7, 24)
    state["head_dist.bias"] = state.pop("head.bias")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        build_model(TINY_RECIPE, str(tmp_path / "w.safetensors"))
    for part in ("head.bias", "head_dist.bias", "(7, 24)", "(24, 24)", f"{len(state) - 2} of the model's {len(state)}"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda state: {f"my_vit.{key}": value for key, value in state.items()}, "my_vit."),
        (lambda state: state | {"head.weight": torch.zeros(7, 24), "head.bias": torch.zeros(7)}, "--num-classes 7"),
        (lambda state: state | {"patch_embed.proj.weight": torch.zeros(24, 4, 8, 8)}, "in_chans: 4"),
        (lambda state: {key: value for key, value in state.items() if "blocks.2" not in key}, "another model"),
        (lambda state: {f"layer{number}.weight": torch.zeros(2) for number in range(9)}, "another project"),
    ],
    ids=["prefix", "classes", "channels", "layers", "project"],
)
def test_a_misfit_says_its_likely_cause(tmp_path: Path, change: Any, hint: str) -> None:
    save_file(change(tiny_weights()), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        build_model(TINY_RECIPE, str(tmp_path / "w.safetensors"))
    assert hint in str(caught.value)


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    save_file(tiny_weights(), tmp_path / "w.safetensors")
    built = build_model(TINY_RECIPE.sized((32, 48)), str(tmp_path / "w.safetensors"))
    assert len(built.notes) == 1
    assert "4x4 to 4x6" in built.notes[0]
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
    checkpoint = Checkpoint(Path("w.pth"), small.state_dict())
    checkpoint = resample(checkpoint, tuple(small.patch_embed.grid_size), large, "")
    assert len(checkpoint.notes) == 1
    large.load_state_dict(checkpoint.state)
    small.set_input_size(size)
    images = images_for(large)
    torch.testing.assert_close(large(images), small(images))
    patched = apply(large, replace(TINY_GTP, num_prop=0))
    assert torch.equal(patched(images), remove(large)(images))
    assert apply(large, TINY_GTP)(images).shape == (2, 5)


# --- files as training runs leave them -------------------------------------------------------------------------------

NAME = "vit_tiny_patch16_224"


def trained(seed: int, **overrides: Any) -> dict[str, torch.Tensor]:
    return build_model(replace(TINY_RECIPE, model_args=TINY | overrides), "random", seed=seed).model.state_dict()


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


AVERAGED, RAW = trained(1), trained(2)
ARGS = argparse.Namespace(model=NAME, output=Path("out"), lr=np.float64(1e-3), betas=(0.9, 0.95))
TIMM_RUN = {
    "epoch": 3,
    "arch": NAME,
    "state_dict": RAW,
    "state_dict_ema": AVERAGED,
    "args": ARGS,
    "metric": np.float32(81),
}
LIGHTNING = {"state_dict": prefixed("model.", AVERAGED) | {"loss.weight": torch.ones(5)}, "epoch": 3}
RUNS: dict[str, Any] = {
    "timm's train.py": TIMM_RUN,
    "DeiT with EMA": {"model": RAW, "model_ema": AVERAGED, "args": ARGS},
    "EVA": {"module": RAW, "model_ema": prefixed("module.", AVERAGED)},
    "DDP and compile": {"model": prefixed("module._orig_mod.", AVERAGED)},
    "compile and DDP": prefixed("_orig_mod.module.", AVERAGED),
    "Lightning": LIGHTNING,
    "Lightning, nested": {"state_dict": prefixed("model.net.", AVERAGED), "optimizer_states": [{"state": {}}]},
    "Lightning with EMA": {"state_dict": prefixed("model.", RAW) | prefixed("ema_model.module.", AVERAGED)},
    "model_state_dict": {"model_state_dict": AVERAGED, "optimizer_state_dict": {"state": {}}, "loss": np.float64(0.3)},
    "net": {"net": prefixed("module.", AVERAGED), "acc": 97.2},
    "swa_utils": prefixed("module.", AVERAGED) | {"n_averaged": torch.tensor(3)},
    "backbone": {"teacher": prefixed("backbone.", AVERAGED), "student": prefixed("module.backbone.", RAW)},
    "a module of another's": {"weights": prefixed("model.vit.", AVERAGED), "classes": {"cat", "dog"}},
    "with its encoder": prefixed("encoder.", AVERAGED) | {"decoder.weight": torch.ones(5)},
    "MoCo": {"state_dict": prefixed("module.base_encoder.", AVERAGED) | prefixed("module.momentum_encoder.", RAW)},
    "FSDP": prefixed("module._fsdp_wrapped_module.", AVERAGED),
    "activation checkpointing": {
        re.sub(r"^(blocks\.\d+\.)", r"\1_checkpoint_wrapped_module.", key): value for key, value in AVERAGED.items()
    },
    "BasicSR": {"params": RAW, "params_ema": AVERAGED},
    "history and date": {
        "model_weights": AVERAGED,
        "history": defaultdict(list, {"acc": [0.9]}),
        "best": defaultdict(float),
        "at": datetime(2026, 1, 2, tzinfo=timezone.utc),
        "took": timedelta(seconds=3),
    },
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["last.pth.tar", "last.ckpt", "pytorch_model.bin"])
def test_files_of_training_runs(tmp_path: Path, run: str, name: str) -> None:
    torch.save(RUNS[run], tmp_path / name)
    assert build_model(TINY_RECIPE, str(tmp_path / name)).sha256 == state_sha256(AVERAGED)


@pytest.mark.parametrize("run", ["timm's train.py", "DeiT with EMA", "Lightning with EMA", "backbone"])
def test_ema_weights_are_noted_and_can_be_left(tmp_path: Path, run: str) -> None:
    torch.save(RUNS[run], tmp_path / "w.pth")
    assert any("EMA" in note or "ema_" in note for note in build_model(TINY_RECIPE, str(tmp_path / "w.pth")).notes)
    raw = build_model(replace(TINY_RECIPE, ema=False), str(tmp_path / "w.pth"))
    assert raw.sha256 == state_sha256(RAW)
    assert raw.notes


def test_what_a_message_names_of_objects_that_are_not_data(tmp_path: Path) -> None:
    torch.save({"model": RAW, "trainer": Harmful(tmp_path / "created")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"touch|getattr"):
        build_model(TINY_RECIPE, str(tmp_path / "w.pth"))
    assert not (tmp_path / "created").exists()


def test_wrappers_without_end_are_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "w.pth")


def test_torchscript_is_refused_by_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:  # as torch.jit.save lays it out
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"w/{name}", b"")
    with pytest.raises(WeightsError, match=r"TorchScript"):
        build_model(TINY_RECIPE, str(tmp_path / "w.pt"))


@pytest.mark.parametrize("classes", [1, 7, 1000])
def test_the_number_of_classes_is_the_files(tmp_path: Path, classes: int) -> None:
    own = {key: value for key, value in TINY.items() if key != "num_classes"}
    state = trained(1, num_classes=classes)
    save_file(state, tmp_path / "w.safetensors")
    built = build_model(replace(TINY_RECIPE, model_args=own), str(tmp_path / "w.safetensors"))
    assert built.model.num_classes == classes
    assert built.sha256 == state_sha256(state)
    assert bool(built.notes) == (classes != 1000)


def test_a_file_without_classifier_gives_features(tmp_path: Path) -> None:
    own = {key: value for key, value in TINY.items() if key != "num_classes"}
    save_file(trained(1, num_classes=0), tmp_path / "w.safetensors")
    built = build_model(replace(TINY_RECIPE, model_args=own), str(tmp_path / "w.safetensors"))
    assert built.model.num_classes == 0
    assert built.notes


def test_equal_counts_on_another_grid_are_resampled(tmp_path: Path) -> None:
    small = {"patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
    recipe = replace(TINY_RECIPE, model_args=small)
    built = build_model(recipe, "random")
    save_file(built.model.state_dict(), tmp_path / "w.safetensors")
    wide = recipe.sized((112, 448))
    resampled = build_model(wide, str(tmp_path / "w.safetensors"))
    assert any("14x14 to 7x28" in note for note in resampled.notes)
    built.model.set_input_size((112, 448))
    torch.testing.assert_close(resampled.model.pos_embed, built.model.pos_embed)
    as_trained = replace(wide, weights_img_size=(112, 448))
    save_file(build_model(wide, "random").model.state_dict(), tmp_path / "wide.safetensors")
    assert build_model(as_trained, str(tmp_path / "wide.safetensors")).notes == ()
    with pytest.raises(WeightsError, match=r"weights-img-size"):
        build_model(replace(wide, weights_img_size=(64, 64)), str(tmp_path / "w.safetensors"))


# --- files as other projects publish them: equal to what timm's own loader makes of them -----------------------------

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def dinov2(model: Any) -> dict[str, torch.Tensor]:
    state = model.state_dict() | {"mask_token": torch.randn(1, 32)}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        first = torch.randn(1, 1, 32)
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
        state["cls_token"] = state["cls_token"] - first
    return state


def renamed(state: dict[str, torch.Tensor], *names: tuple[str, str]) -> dict[str, torch.Tensor]:
    return {reduce(lambda text, pair: text.replace(*pair), names, key): value for key, value in state.items()}


def dinov3(model: Any) -> dict[str, torch.Tensor]:
    state = renamed(
        model.state_dict(), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens")
    )
    return state | {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4)}


def dino(model: Any) -> Any:
    projection = {"module.head.mlp.0.weight": torch.ones(2, 2)}
    return {"teacher": prefixed("module.backbone.", model.state_dict()) | projection}


def mae(model: Any) -> Any:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 32)}
    return {"model": model.state_dict() | decoder | {"decoder_blocks.0.norm1.weight": torch.ones(8)}}


def deit3(model: Any) -> Any:
    return {"model": renamed(model.state_dict(), ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))}


def openai_clip(model: Any) -> dict[str, torch.Tensor]:
    names = (
        ("patch_embed.proj.", "conv1."), ("pos_embed", "positional_embedding"), ("blocks.", "transformer.resblocks."),
        ("norm_pre", "ln_pre"), ("norm1", "ln_1"), ("norm2", "ln_2"), ("qkv.", "in_proj_"),
        ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
        ("cls_token", "class_embedding"),
    )  # fmt: skip
    tower = {key: value for key, value in model.state_dict().items() if not key.startswith("head.")}
    state = {f"visual.{re.sub('^norm[.]', 'ln_post.', key)}": value.half() for key, value in tower.items()}
    state = renamed(state, *names)
    state["visual.class_embedding"] = state["visual.class_embedding"][0, 0]
    state["visual.positional_embedding"] = state["visual.positional_embedding"][0]
    state["visual.proj"] = model.head.weight.detach().T.half()
    return state | {"positional_embedding": torch.zeros(77, 32), "logit_scale": torch.zeros(())}


def open_clip_trunk(model: Any) -> dict[str, torch.Tensor]:
    return prefixed("visual.trunk.", model.state_dict()) | {"text.positional_embedding": torch.zeros(7, 3)}


ORIGINALS: dict[str, Any] = {
    "DINOv2": ("vit_small_patch14_dinov2.lvd142m", SMALL, dinov2),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2.lvd142m", SMALL, dinov2),
    "DINOv3": ("vit_small_patch16_dinov3.lvd1689m", SMALL, dinov3),
    "DINO": ("vit_small_patch16_224.dino", SMALL, dino),
    "MAE": ("vit_base_patch16_224.mae", SMALL, mae),
    "DeiT": ("deit_tiny_patch16_224.fb_in1k", SMALL, lambda model: {"model": model.state_dict()}),
    "DeiT III": ("deit3_small_patch16_224.fb_in1k", SMALL, deit3),
    "OpenAI CLIP": ("vit_base_patch32_clip_224.openai", SMALL | {"num_classes": 16}, openai_clip),
    "open_clip, timm's trunk": ("vit_base_patch16_siglip_224.webli", SMALL, open_clip_trunk),
    "EVA-02": ("eva02_tiny_patch14_224.mim_in22k", SMALL, lambda model: {"module": model.state_dict()}),
}


@pytest.mark.parametrize("kind", ORIGINALS)
def test_original_files_are_read_as_timm_reads_them(tmp_path: Path, kind: str) -> None:
    name, args, original = ORIGINALS[kind]
    torch.manual_seed(3)
    source = timm.create_model(name, **args).eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    if kind == "OpenAI CLIP":
        torch.nn.init.zeros_(source.head.bias)  # its projection has none
    torch.save(original(source), tmp_path / "original.pth")
    built = build_model(Recipe("m", "m", name, model_args=args), str(tmp_path / "original.pth"))
    images = torch.randn(1, *built.model.pretrained_cfg["input_size"][:1], *built.model.patch_embed.img_size)
    with torch.inference_mode():
        torch.testing.assert_close(built.model(images), source(images), atol=2e-3, rtol=2e-3)
    if kind in ("DINO", "MAE", "DeiT III"):
        return  # timm's own loader reads the files of its own hub alone, without these wrappers and decoders
    overlay = {"file": str(tmp_path / "original.pth"), "num_classes": source.num_classes}
    theirs = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=source.num_classes, **SMALL
    )
    assert state_sha256(theirs.state_dict()) == built.sha256
