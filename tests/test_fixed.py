"""The selection "Fixed": moves that are fitted on images, constant in the graph."""

from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts import Command
from eva_models import tiny_eva
from helpers import images_for, noise_of, prefixes, tiny_vit
from onnx_graphs import check_answers, graph_of, operators

from gtp_exporters.measuring.space import make_space
from gtp_models import ConfigError, GTPConfig, apply, calibrate, fit_schedule, make_plan, remove, trace_tokens
from gtp_models.methods.gtp.fixed import fitted_moves
from gtp_models.plan import model_shape
from gtp_runtime import read_manifest

MOVES = ((), ((1, 0), (5, 4), (9, 4)), ((3, 4),))


def fixed(**settings: Any) -> GTPConfig:
    return GTPConfig.measured(**{"num_prop": (0, 4, 3), "selection": "Fixed"} | settings)


def scene(model: Any, count: int = 6) -> torch.Tensor:
    """One picture with a little noise."""
    return images_for(model, 1) + 0.01 * noise_of(count, 3, *model.patch_embed.img_size, seed=1)


@pytest.mark.parametrize("num_prefix", [0, 2])
def test_every_image_moves_the_same_tokens(num_prefix: int) -> None:
    model = tiny_vit(reg_tokens=num_prefix - 1) if num_prefix else tiny_vit(class_token=False, global_pool="avg")
    apply(model, fixed(num_prop=(0, 3, 1), moves=MOVES))
    with torch.inference_mode(), trace_tokens(model) as trace:
        model(images_for(model, 3))
    for step, moves in zip(trace, MOVES, strict=True):
        assert step.propagated.tolist() == [[left for left, _ in moves]] * 3
        assert step.received_by is None or step.received_by.tolist() == [[into for _, into in moves]] * 3


def test_the_moves_are_those_of_the_mean_similarity() -> None:
    x = torch.eye(8)[[0, 1, 2, 0, 1, 5, 6, 7]] + 0.01
    unit = torch.nn.functional.normalize(x, dim=-1)
    patches = [10, 11, 12, 13, 14, 15, 16, 17]
    assert fitted_moves(unit @ unit.mT, torch.ones(8), patches, 2) == ((13, 10), (14, 11))
    sizes = torch.tensor([1.0, 1, 1, 1, 1e6, 1, 1, 1])
    assert (14, 11) not in fitted_moves(unit @ unit.mT * 0.9, sizes, patches, 2)


@prefixes
def test_a_still_scene_keeps_its_answers_as_the_measured_form(prefix: dict[str, Any]) -> None:
    model = tiny_vit(**prefix)
    images = scene(model)
    config = calibrate(model, fixed(), [images[:2], images[2:]])
    with torch.inference_mode():
        dense, other = model(images), apply(model, GTPConfig.measured(num_prop=(0, 4, 3)))(images)
        remove(model)
        ours = apply(model, config)(images)
    assert (ours - dense).norm() <= 1.3 * (other - dense).norm()
    assert calibrate(remove(model), fixed(), [images]) == config, "however the images are divided"


@pytest.mark.parametrize(
    ("family", "batch"),
    [
        ("ViT", 1),
        ("EVA-02", 2),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in (("ViT", 2), ("EVA-02", 1), ("DINOv3", 1), ("DINOv3", 2))
        ),
    ],
)
def test_onnx_equals_eager_without_ranking(family: str, batch: int) -> None:
    model = tiny_vit(reg_tokens=1) if family == "ViT" else tiny_eva(family)
    settings = calibrate(model, fixed(num_prop=(0, 4, 3)[-len(model.blocks) :]), [images_for(model, 4)])
    graph = graph_of(apply(model, settings), batch)
    assert not {"TopK", "ArgMax", "Equal", "GatherElements", "GatherND", "Log"} & operators(graph)
    check_answers(graph, model, batch)


def test_pruning_and_the_grid_take_fixed_places_too() -> None:
    model = tiny_vit()
    for axes in ({"propagation": "None", "graph": "None"}, {"propagation": "GraphProp", "graph": "Spatial"}):
        graph = graph_of(apply(model, calibrate(model, fixed(**axes), [images_for(model, 4)])), 1)
        assert not {"TopK", "ArgMax"} & operators(graph)
        remove(model)


def test_fitting_where_needs_no_moves_yet() -> None:
    model = tiny_vit()
    settings = fit_schedule(model, fixed(num_prop=None, keep=0.8, schedule="fitted"), images_for(model, 8))
    assert settings.needs_calibration and isinstance(settings, GTPConfig)
    config = calibrate(model, settings, [images_for(model, 8)])
    assert list(map(len, config.moves or ())) == list(make_plan(model, config).num_prop)
    assert GTPConfig(**config.to_dict()) == config


def test_both_calibrations() -> None:
    model = tiny_vit()
    config = calibrate(model, fixed(sparsity=0.7, threshold="calibrated"), [images_for(model, 8)])
    assert config.moves and config.calibration and not config.needs_calibration


@pytest.mark.parametrize(
    "moves",
    [
        (((1, 0),), ()),  # two layers
        ((), ((1, 0),), ()),  # too few
        ((), ((1, 0), (1, 2), (3, 4)), ((6, 4),)),  # twice
        ((), ((1, 0), (2, 1), (3, 4)), ((6, 4),)),  # a receiver that leaves
        ((), ((1, 0), (2, 16), (3, 4)), ((6, 4),)),  # no such patch
        ((), ((1, 0), (2, 0), (3, 4)), ((3, 4),)),  # gone before
    ],
)
def test_moves_that_do_not_fit(moves: Any) -> None:
    with pytest.raises(ConfigError):
        apply(tiny_vit(), fixed(num_prop=(0, 3, 1), moves=moves))


@pytest.mark.parametrize("moves", [3, [[1, 2]], [[[1]]], [[[1, -2]]], [[[1, 2.5]]], "ab"])
def test_what_is_no_moves(moves: Any) -> None:
    with pytest.raises(ConfigError):
        fixed(moves=moves)


def test_without_images_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="calib-data"):
        apply(tiny_vit(), fixed())
    with pytest.raises(ConfigError):
        calibrate(tiny_vit(), fixed(), [])
    assert "moves" in GTPConfig.measured(moves=MOVES).unused()


def test_a_search_tries_none() -> None:
    assert "Fixed" not in make_space(model_shape(tiny_vit()), 4, ("fp32",)).selections


def test_the_command(command: Command, tmp_path: Path) -> None:
    options = ["--selection", "Fixed", "--keep", "0.8", "--schedule", "at:2", "--no-report", "--no-check", "--no-dense"]
    ran = command("export", "digits", *options, "-o", tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert ran.code == 0 and sum(map(len, manifest.settings["moves"])) == sum(manifest.num_prop)
    assert [spec.name for spec in manifest.entry("model.onnx").outputs] == ["logits"]
    random = ["timm:vit_tiny_patch16_224", "--weights", "random"]
    ran = command("export", *random, "--selection", "Fixed", "-o", tmp_path / "no")
    assert ran.code == 2 and "--calib-data" in ran.error
