import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts import TINY, Command
from safetensors.torch import save_file
from timm.models import PretrainedCfg

from gtp_models.class_names import names_of, read_class_names
from gtp_models.errors import ConfigError
from gtp_models.recipes import load_recipe, write_recipe
from gtp_models.weights import BuiltModel, build_model
from gtp_runtime import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")
NAMES = ["cat", "dog", "grey owl"]
FILES: dict[str, str] = {
    "lines": "\ufeffcat\ndog\r\ngrey owl\n\n",
    "a list": json.dumps(NAMES),
    "a table by number": json.dumps({"2": "grey owl", "0": "cat", "1": "dog"}),
    "class_to_idx": json.dumps({"grey owl": 2, "cat": 0, "dog": 1}),
    "id2label": json.dumps({"model_type": "vit", "id2label": dict(enumerate(NAMES))}),
    "timm's label_names": json.dumps({"architecture": "vit", "label_names": NAMES}),
}


@pytest.mark.parametrize("form", FILES)
def test_files_of_class_names(tmp_path: Path, form: str) -> None:
    (tmp_path / "names").write_text(FILES[form], "utf-8")
    assert read_class_names(tmp_path / "names") == NAMES


@pytest.mark.parametrize(
    "text", ["", "cat\n\ndog\n", "[1, 2]", '{"0": "cat", "2": "dog"}', '{"a": 0, "b": 0}', "{", '["\\u001b[31m"]']
)
def test_what_holds_no_class_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="names"):
        read_class_names(tmp_path / "names")
    with pytest.raises(ConfigError, match="missing"):
        read_class_names(tmp_path / "missing")


def built(source: Any, weights: Path | None = None, tag: str = "fb_in1k", **arguments: Any) -> BuiltModel:
    recipe = replace(load_recipe("deit_s"), timm=f"deit_small_patch16_224.{tag}", weights=weights, model_args=arguments)
    return BuiltModel(None, recipe, source, "", "")


def test_only_imagenets_weights_have_imagenets_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (built("pretrained"), built("random")):
        (labels, ids), note = names_of(model, 1000)
        assert labels is not None and ids is not None and not note
        assert (labels[0], ids[-1], len(ids)) == ("tench, Tinca tinca", "n15075141", 1000)
    for model in (built("file"), built("pretrained", Path("own.pth")), built("random", num_classes=1000)):
        names, note = names_of(model, 1000)
        assert names == (None, None)
        assert "--class-names imagenet-1k" in note
        asked = replace(model, recipe=replace(model.recipe, labels="imagenet-1k"))
        assert names_of(asked, 1000)[0][1] is not None
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda name: PretrainedCfg(num_classes=1000, tag="places"))
    assert names_of(built("pretrained"), 1000)[0] == (None, None)
    assert names_of(built("pretrained"), 10) == ((None, None), "")


@pytest.mark.parametrize("labels", ["imagenet-1k", NAMES])
@pytest.mark.parametrize("classes", [0, 5])
def test_names_of_another_number_are_refused(labels: Any, classes: int) -> None:
    model = built("file")
    with pytest.raises(ConfigError, match="--class-names"):
        names_of(replace(model, recipe=replace(model.recipe, labels=labels)), classes)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Path]:
    """A recipe without a number of classes, a training run's file with EMA weights, and names of its classes."""
    arguments = {name: value for name, value in TINY.model_args.items() if name != "num_classes"}
    write_recipe(replace(TINY, model_args=arguments), TINY.settings(), tmp_path / "own.yaml")  # type: ignore[arg-type]
    states = [build_model(TINY, "random", seed).model.state_dict() for seed in (1, 2)]
    torch.save({"state_dict": states[0], "state_dict_ema": states[1]}, tmp_path / "run.pth")
    save_file(states[0], tmp_path / "raw.safetensors")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n", "utf-8")
    return {"recipe": tmp_path / "own.yaml", "run": tmp_path / "run.pth", "names": tmp_path / "names.txt"}


def test_a_fine_tuned_model_needs_no_recipe(command: Command, own: dict[str, Path], tmp_path: Path) -> None:
    quick = ("--no-check", "--no-report", "--no-simplify", "--no-dense")
    ran = command(
        *("export", own["recipe"], "--weights", own["run"], "-o", tmp_path / "out", "--labels", own["names"]),
        *("--num-classes", "5", "--no-ema", *quick),
    )
    assert ran.code == 0, ran.err
    manifest = read_manifest(tmp_path / "out")
    assert manifest.labels == list("abcde")
    assert manifest.weights.sha256 == build_model(TINY, str(tmp_path / "raw.safetensors")).sha256
    ran = command("export", own["recipe"], "--weights", own["run"], "-o", tmp_path / "out", "--num-classes", "7")
    assert ran.code == 2 and "--num-classes 5" in ran.err
    (tmp_path / "names.txt").write_text("a\nb\n", "utf-8")
    ran = command("export", own["recipe"], "--weights", own["run"], "-o", tmp_path / "out", "--labels", own["names"])
    assert ran.code == 2 and "--class-names" in ran.err
    assert read_manifest(tmp_path / "out").labels == list("abcde")


@pytest.mark.parametrize("name", ["export", "compare", "tune", "calibrate"])
@pytest.mark.parametrize(
    "options",
    [
        ("--weights", "random", "--no-ema"),
        ("--weights", "random", "--weights-img-size", "224"),
        ("--weights", "random", "--random-head"),
        ("--no-ema",),
    ],
)
def test_options_without_effect_are_refused(
    command: Command, own: dict[str, Path], tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    needed = {"tune": ("--max-drop", "1"), "calibrate": ("--sparsity", ".5")}.get(name, ())
    output = tmp_path / ("out.yaml" if name == "calibrate" else "out")
    ran = command(name, own["recipe"], "-o", output, *needed, *options)
    assert (ran.code == 2 and options[-1] in ran.err) or "--weights-img-size" in ran.err, ran.err
    assert not output.exists()


def test_switches_are_kept_in_recipe_files(tmp_path: Path) -> None:
    recipe = replace(TINY, ema=False, random_head=True, weights_img_size=(16, 32))
    write_recipe(recipe, TINY.settings(), tmp_path / "own.yaml")  # type: ignore[arg-type]
    again = load_recipe(str(tmp_path / "own.yaml"))
    assert (again.ema, again.random_head, again.weights_img_size) == (False, True, (16, 32))
    (tmp_path / "wrong.yaml").write_text("timm: vit_tiny_patch16_224\nema: 1\n", "utf-8")
    with pytest.raises(ConfigError, match="ema"):
        load_recipe(str(tmp_path / "wrong.yaml"))


@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels_is_refused(command: Command, tmp_path: Path, channels: int) -> None:
    recipe = replace(TINY, model_args=TINY.model_args | {"in_chans": channels})
    write_recipe(recipe, TINY.settings(), tmp_path / "grey.yaml")  # type: ignore[arg-type]
    ran = command("export", tmp_path / "grey.yaml", "--weights", "random", "-o", tmp_path / "out")
    assert ran.code in (1, 2) and f"in_chans {channels}" in ran.error
    assert not (tmp_path / "out").exists()
