"""``compare``: methods beside the dense model, measured once each, resumed, in tables, a plot and a document."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import DIGITS, ONE_OF_EACH, SEVEN, TINY, Command
from helpers import openvino_has
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

import gtp_runtime
from gtp_exporters import CompareOptions, ExportOptions, compare, export
from gtp_exporters.errors import LimitError
from gtp_exporters.measuring import grid
from gtp_exporters.measuring.candidate import Candidate, Running, make_runnings
from gtp_exporters.measuring.comparison import (
    FORMAT,
    Budget,
    Comparison,
    Skipped,
    choose,
    default_names,
    plan_cases,
    read_published,
)
from gtp_exporters.measuring.latency import contradicts, share_of, time_plausibly
from gtp_exporters.measuring.pages import comparison_page, plot_comparison, write_comparison
from gtp_exporters.measuring.result import Loss, Result, Timing, with_front
from gtp_exporters.report.drawing import Axis
from gtp_models import ConfigError, Recipe, load_recipe, make_settings
from gtp_models.errors import WeightsUnavailableError
from gtp_models.weights import build_model, outline
from gtp_runtime.errors import BackendMissingError, OutputError
from gtp_runtime.images.labels import ILSVRC, META

QUICK: dict[str, Any] = {"seconds": 0.0, "rounds": 1, "footprint": False}
BF16 = [("openvino", "bf16")] if openvino_has("BF16") else []  # what this CPU lacks is left out
MARKUP = "<b>&amp;</b> | `x`"


def row(name: str = "tome", ratio: float = 0.8, **values: Any) -> Result:
    made: dict[str, Any] = {
        "name": name,
        "method": "tome",
        "settings": {},
        "backend": "onnxruntime",
        "precision": "fp32",
        "num_prop": [1],
        "macs": 75,
        "macs_ratio": 0.75,
        "total_ratio": 0.75,
        "loss": loss(),
        "timing": Timing(10 * ratio, 10.0),
        "cost": gtp_runtime.Footprint(1000),
        "share": 0.8,
        "budget": {"keep": 0.75},
        "command": ["--method", name],
    }
    return Result(**made | values)


def loss(distance: float = 0.01, top1: float | None = 0.5, top1_drop_se: float = 0.05) -> Loss:
    if top1 is None:
        return Loss(8, distance, 0.001, agreement=0.8)
    return Loss(8, distance, 0.001, 0.8, top1, 0.1, 0.9, 0.6, 0.1, top1_drop_se)


DENSE: dict[str, Any] = {"budget": {}, "ratio": 1.0, "loss": loss(0.0)}


def made(rows: list[Result], **values: Any) -> Comparison:
    given: dict[str, Any] = {name: name for name in ("model", "title", "timm", "weights", "data")}
    given |= {"images": 8, "unreadable": 0, "batch": 1, "seconds": 0.0, "rounds": 1, "options": {}, "tools": {}}
    return Comparison(rows=rows, **given | values)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a recipe of a tiny model, with weights and ten images of its own."""
    place = tmp_path_factory.mktemp("small")
    arguments = "{img_size: 16, patch_size: 2, embed_dim: 24, depth: 3, num_heads: 3, num_classes: 5}"
    text = f"timm: vit_tiny_patch16_224\nmodel_args: {arguments}\nlabels: ['0', '1', '2', '3', '4']\nimages: images\n"
    recipe = place / "small.yaml"
    recipe.write_text(f"{text}gtp: {{num_prop: 4, num_neighbours: 4}}\n", encoding="utf-8")
    model = build_model(load_recipe(str(recipe)), "random", seed=1).model
    save_file(model.state_dict(), place / "small.safetensors")
    recipe.write_text(f"{recipe.read_text('utf-8')}weights: small.safetensors\n", encoding="utf-8")
    for digit in range(5):
        (place / "images" / str(digit)).mkdir(parents=True)
        for image in sorted((DIGITS / "images" / str(digit)).iterdir())[:2]:
            shutil.copy(image, place / "images" / str(digit))
    return recipe


@pytest.fixture(scope="module")
def compared(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """Two methods on two backends in two precisions, one of which ONNX Runtime does not run."""
    place = tmp_path_factory.mktemp("compared") / "out"
    options = CompareOptions(
        methods=("measured", "tome"),
        budgets=(Budget(keep=0.75),),
        backends=("onnxruntime", "openvino"),
        precisions=("fp32", "bf16"),
        seconds=0.0,
        rounds=2,
    )
    return compare(str(small), place, options=options), place


def test_every_method_is_measured_on_every_backend_in_every_precision(compared: tuple[Comparison, Path]) -> None:
    found, _ = compared
    runs = [("onnxruntime", "fp32"), ("openvino", "fp32"), *BF16]
    assert found.runs() == runs
    lacking = ["onnxruntime bf16", *([] if BF16 else ["openvino bf16"])]
    assert [entry.what for entry in found.skipped] == lacking
    assert "no kernels" in found.skipped[0].why
    for run in runs:
        dense, *others = found.of(*run)
        assert [dense.name, *(row.name for row in others)] == ["dense", "measured", "tome"]
        assert all(0.7 < row.macs_ratio < 0.8 and row.distance > 0 for row in others)
        assert all(row.loss.top1_se is not None and row.loss.top1_drop_se is not None for row in (dense, *others))
    first = found.rows[0]
    assert (first.ratio, first.distance, first.loss.agreement, first.loss.top1_drop, first.macs_ratio) == (
        1,
        0,
        1,
        0,
        1,
    )
    assert all(found.of(*run)[0].distance > 0 for run in BF16), "of fp32 from bf16"
    assert any(row.is_front for row in found.rows)
    assert (found.images, found.data, found.options["openvino"]["threads"]) == (10, "the recipe's own", 1)
    assert all(row.cost.peak_mib > 10 and row.cost.cold_start_ms > 1 for row in found.rows)


def test_figures_are_those_of_evaluate(compared: tuple[Comparison, Path], small: Path, tmp_path: Path) -> None:
    tome = next(row for row in compared[0].rows if row.name == "tome")
    recipe = load_recipe(str(small))
    options = ExportOptions(target="onnxruntime", trace=False)
    export(recipe, tmp_path / "tome", settings=make_settings("tome", keep=0.75), options=options, check=False)
    with (
        gtp_runtime.load(tmp_path / "tome", threads=1) as model,
        gtp_runtime.load(tmp_path / "tome" / "dense.onnx", threads=1) as dense,
    ):
        images = gtp_runtime.find_image_set(small.parent / "images", model.manifest)
        truth = gtp_runtime.evaluate(model, dense, images)
        plain = gtp_runtime.evaluate(dense, None, images)
    values = {name: getattr(tome.loss, name) for name in ("images", "top1", "top1_se", "top1_drop", "agreement")}
    assert values == {name: getattr(truth, name) for name in values}
    assert tome.distance == pytest.approx(truth.divergence, rel=1e-3)
    base = compared[0].rows[0]
    assert (base.loss.top1, base.loss.top5) == (plain.top1, plain.top5)
    assert base.loss.top1_se == pytest.approx(plain.top1_se)
    assert tome.num_prop == model.manifest.num_prop
    assert tome.cost.file_bytes == pytest.approx(model.entry.size, rel=0.05)


def test_files_say_the_same(compared: tuple[Comparison, Path]) -> None:
    found, place = compared
    assert sorted(path.name for path in place.iterdir()) == ["compare.json", "compare.md", "compare.svg"]
    document = json.loads((place / "compare.json").read_text("utf-8"))
    assert document == found.to_dict() and document["format"] == FORMAT
    text = (place / "compare.md").read_text("utf-8")
    assert text.count("| tome | 0.75 |") == len(found.runs()) and "onnxruntime bf16: " in text
    drawn = ET.fromstring((place / "compare.svg").read_text("utf-8"))
    names = [entry.tag.partition("}")[2] for entry in drawn.iter()]
    assert names.count("circle") == 2 + 2 * 2 * len(found.runs()), "the legend's, and each row for divergence and top-1"


@pytest.mark.full
def test_what_was_stopped_goes_on(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CompareOptions(methods=("tome",), budgets=(Budget(keep=0.8), Budget(keep=0.6)), **QUICK)
    measure, seen = grid._Grid.measure, []

    def stopped(self: Any, *arguments: Any) -> Any:
        seen.append(arguments[-1])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return measure(self, *arguments)

    monkeypatch.setattr(grid._Grid, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(str(small), tmp_path, options=options)
    assert [path.name for path in tmp_path.iterdir()] == [".gtp-export"], "no result yet"
    found = compare(str(small), tmp_path, options=options)
    assert [what.partition(",")[0] for what in seen] == ["part 1 of 2", "part 2 of 2", "part 2 of 2"]
    assert [row.budget for row in found.rows] == [{}, {"keep": 0.8}, {"keep": 0.6}]
    assert not (tmp_path / ".gtp-export").exists()
    compare(str(small), tmp_path, options=replace(options, budgets=options.budgets[:1]))
    assert len(seen) == 4, "one that was finished is measured anew"


def test_what_was_measured_of_another_question_is_measured_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small.parent / "images", small.parent / "calibration")
    recipe = small.parent / "calibrated.yaml"
    recipe.write_text(f"{small.read_text('utf-8')}calibration: calibration\n", encoding="utf-8")
    options = CompareOptions(methods=("tome",), budgets=(Budget(keep=0.8), Budget(keep=0.6)), **QUICK)
    seen: list[str] = []

    def measured(self: Any, cases: Any, candidates: Any, what: str) -> list[Result]:
        seen.append(what.partition(",")[0])
        if what.startswith("part 2"):
            raise KeyboardInterrupt
        return [row("dense", **DENSE), row()]

    def stopped() -> list[str]:
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            compare(str(recipe), tmp_path, options=options)
        return seen

    monkeypatch.setattr(grid._Grid, "measure", measured)
    monkeypatch.setattr(grid._Grid, "_check_runnings", lambda self: [])
    monkeypatch.setattr(grid.Graphs, "graph", lambda self, candidate: Path())  # nothing is exported
    assert stopped() == ["part 1 of 2", "part 2 of 2"]
    assert stopped() == ["part 2 of 2"]
    image = next((small.parent / "calibration").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"changed")
    assert stopped() == ["part 1 of 2", "part 2 of 2"], "calibrated on other images"
    monkeypatch.setattr("gtp_exporters.measuring.grid.describe_machine", lambda names: {"board": "another"})
    assert stopped() == ["part 1 of 2", "part 2 of 2"], "on another device"


def test_nothing_is_left_of_what_fails_at_once(small: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="nothing"):
        compare(str(small), tmp_path / "out", weights="nothing.safetensors", options=CompareOptions(**QUICK))
    assert not (tmp_path / "out").exists()


def test_images_without_classes(small: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for index, image in enumerate(ONE_OF_EACH):
        shutil.copy(image, tmp_path / "flat" / f"{index}.png")
    (tmp_path / "flat" / "broken.png").write_bytes(SEVEN.read_bytes()[:80])
    options = CompareOptions(("prune",), (Budget(num_prop=4),), data=tmp_path / "flat", seconds=0.0, rounds=1)
    found = compare(str(small), tmp_path / "out", options=options)
    dense, prune = found.rows
    assert (found.images, found.unreadable, found.data) == (10, 1, "flat")
    assert (dense.loss.top1, prune.loss.top1, prune.loss.top1_drop) == (None, None, None)
    assert prune.distance > 0 and 0 <= prune.loss.agreement <= 1 and prune.num_prop == [4] * 3
    text = (tmp_path / "out" / "compare.md").read_text("utf-8")
    assert "below dense |" not in text and "| prune | 4 a layer |" in text and "1 more cannot be read" in text


def imagenet(place: Path, wnids: Sequence[str]) -> Path:
    """Make validation images and the development kit's ground truth as ImageNet has them."""
    (place / "val").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(len(wnids)):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "val" / f"ILSVRC2012_val_{index + 1:08d}.JPEG")
    known = sorted(set(wnids), reverse=True)  # its own ids are not in WordNet's order
    synsets = np.array(list(enumerate(known, 1)), [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(place / META, {"synsets": synsets})
    (place / ILSVRC).write_text("".join(f"{known.index(wnid) + 1}\n" for wnid in wnids), "utf-8")
    return place


@pytest.mark.full
@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
def test_imagenets_layout_with_published_figures_beside(tmp_path: Path, command: Command) -> None:
    place = imagenet(tmp_path / "imagenet", ["n01440764", "n02099601", "n01440764", "n15075141", "n02123045"])
    arguments = "{img_size: 16, patch_size: 2, embed_dim: 24, depth: 3, num_heads: 3}"
    published = "gtp: [{num_prop: 4, sparsity: 0.6, alpha: 0.2, top1: 81.46}], tome: [{num_prop: 4, top1: 80.5}]"
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        f"timm: deit_small_patch16_224.fb_in1k\nmodel_args: {arguments}\nlabels: imagenet-1k\n"
        f"reference: {{dense_top1: 81.8, dense_source: a paper, gtp_source: another, {published}}}\n",
        encoding="utf-8",
    )
    ran = command(
        *("compare", recipe, "--weights", "random", "--data", place / "val", "--labels", place / ILSVRC),
        *("--methods", "published,paper,measured,tome", "--num-prop", "4,5", "--seconds", "0", "--rounds", "1"),
        "--no-footprint",
        *("-o", tmp_path / "out", "--json"),
    )
    assert ran.code == 0, ran.err
    assert "warning: " in ran.err and "random weights" in ran.err
    found = json.loads(ran.out)
    rows = {(row["name"], row["budget"].get("num_prop")): row for row in found["rows"]}
    assert list(rows) == [
        *(("dense", None), ("published", 4), ("paper", 4), ("measured", 4), ("tome", 4)),
        *(("paper", 5), ("measured", 5), ("tome", 5)),
    ]
    assert [entry["what"] for entry in found["skipped"]] == ["published at 5 a layer"]
    assert "recipe small has no published settings for 5 a layer" in found["skipped"][0]["why"]
    figures = {key: row["published"] for key, row in rows.items() if row["published"] is not None}
    assert figures == {("dense", None): 81.8, ("published", 4): 81.46, ("tome", 4): 80.5}
    assert (rows["published", 4]["settings"]["sparsity"], rows["published", 4]["settings"]["alpha"]) == (0.6, 0.2)
    assert found["sources"] == {"dense": "a paper", "gtp": "another"}
    assert all(row["images"] == 5 and row["top1"] is not None for row in found["rows"])
    text = (tmp_path / "out" / "compare.md").read_text("utf-8")
    assert "| published | 4 a layer |" in text and "| 81.46 |" in text and "- gtp: another" in text


def test_the_recipes_published_figures() -> None:
    recipe = load_recipe("deit_b")
    budgets = [Budget(num_prop=amount) for amount in range(1, 15)]
    cases = plan_cases(recipe, outline(recipe), ["published", "paper", "tome"], budgets)
    assert cases.skipped == [] and cases.dense.published == recipe.reference["dense_top1"]
    figures = [case.published for case in cases.others if case.method == "published"]
    assert figures == [entry["top1"] for entry in recipe.reference["gtp"]] and figures[7] == 81.46
    assert all(case.published is None for case in cases.others if case.method != "published"), "of other settings"
    assert all(len({case.plan.backbone for case in cases.of(budget)}) == 1 for budget in budgets), "at equal MACs"
    large = load_recipe("vit_l16")
    tome = plan_cases(large, outline(large), ["tome"], [Budget(num_prop=7)]).others[0]
    assert tome.published == 84.26 and read_published(large).sources["tome"]


def test_a_recipe_may_note_what_it_likes() -> None:
    recipe = Recipe("own", "own", "vit", reference={"dense_top1": "good", "gtp": ["", {"num_prop": 3}], "tome": 4})
    found = read_published(recipe)
    assert (found.dense, found.rows, found.sources) == (None, [], {})


@pytest.mark.parametrize("budget", [Budget(keep=0.75), Budget(num_prop=4)])
@pytest.mark.parametrize("name", [*default_names(), "gtp"])
def test_the_command_of_a_row_means_its_settings(name: str, budget: Budget) -> None:
    from gtp_export.values import num_prop

    recipe = load_recipe("digits")
    choice = choose(name, recipe, budget)
    parts = iter(choice.command(budget))
    given: dict[str, Any] = {option.removeprefix("--").replace("-", "_"): next(parts) for option in parts}
    method, preset = given.pop("method", "gtp"), given.pop("preset", None)
    given = {key: float(value) if key == "keep" else value for key, value in given.items()}
    given |= {key: num_prop(value) for key, value in given.items() if key == "num_prop"}
    assert recipe.settings(method, preset, **given) == choice.settings(recipe, budget)


@pytest.mark.full
def test_fitted_schedules_are_methods(tmp_path: Path) -> None:
    options = CompareOptions(
        methods=("measured", "fitted", "tome-fitted"),
        budgets=(Budget(keep=0.6),),
        calib_data=DIGITS / "calibration",
        limit=20,
        seconds=0.0,
        rounds=1,
        footprint=False,
    )
    measured, fitted, tome = compare("digits", tmp_path / "out", options=options).rows[1:]
    assert fitted.settings["num_prop"] != measured.settings["num_prop"] and tome.method == "tome"
    assert max(fitted.macs_ratio, tome.macs_ratio) <= 0.6 * 1.01  # as near the budget as a fit has to be
    assert fitted.command[:4] == ["--preset", "measured", "--schedule", "fitted"]
    assert fitted.command[-2:] == ["--calib-data", str(DIGITS / "calibration")]


def test_images_that_judge_are_not_fitted_on(tmp_path: Path) -> None:
    options = CompareOptions(methods=("fitted",), budgets=(Budget(keep=0.75),), calib_data=DIGITS / "images")
    with pytest.raises(ConfigError, match="fitted at 0.75"):
        compare("digits", tmp_path / "out", options=options)
    assert default_names(False) == tuple(name for name in default_names() if "fitted" not in name)


def test_forms_of_graphs() -> None:
    runs = make_runnings(["onnxruntime", "openvino"], ["int8", "bf16"], {}, {"threads": 1, "other": 2})
    assert [(run.label, run.written, run.target) for run in runs] == [
        ("onnxruntime fp32", "fp32", "onnxruntime"),
        ("onnxruntime int8", "int8", "onnxruntime"),
        ("onnxruntime bf16", "bf16", "onnxruntime"),
        ("openvino fp32", "fp32", "onnxruntime"),
        ("openvino int8", "int8", "openvino"),
        ("openvino bf16", "fp32", "onnxruntime"),
    ]
    assert [run.options for run in runs[3:]] == [
        {"threads": 1, "compute": "fp32"},
        {"threads": 1},
        {"threads": 1, "compute": "bf16"},
    ]


@pytest.mark.full
def test_int8_is_made_for_each_backend(tmp_path: Path) -> None:
    options = CompareOptions(("measured",), (Budget(keep=0.75),), ("onnxruntime", "openvino"), ("int8",), **QUICK)
    found = compare("digits", tmp_path, options=options)
    names = [(row.backend, row.precision, row.name) for row in found.rows]
    assert names == [
        *((backend, precision, "dense") for backend in options.backends for precision in ("fp32", "int8")),
        *((backend, "int8", "measured") for backend in options.backends),
    ]
    assert all(
        row.cost.file_bytes < 0.6 * found.rows[0].cost.file_bytes for row in found.rows if row.precision == "int8"
    )
    assert all(0 < row.distance < 1 for row in found.rows if row.precision == "int8")
    assert found.rows[-1].command[-4:] == ["--precision", "int8", "--target", "openvino"]


def test_the_front() -> None:
    rows = [
        row("dense", **DENSE),
        row("fast", ratio=0.5, loss=loss(0.1)),
        row("worse", ratio=0.6, loss=loss(0.2)),
        row("equal", ratio=0.5, loss=loss(0.1)),
        row("elsewhere", ratio=0.9, loss=loss(0.9), backend="openvino"),
    ]
    assert [entry.is_front for entry in with_front(rows)] == [True, True, False, True, True]


def test_text_from_files_is_escaped() -> None:
    found = made(
        [row("dense", **DENSE), row(MARKUP), row("empty", backend=MARKUP)],
        title=MARKUP,
        skipped=[Skipped(MARKUP, MARKUP)],
        sources={MARKUP: MARKUP},
    )
    drawn = plot_comparison(found)
    assert "<b>" not in drawn and ET.fromstring(drawn).find("{*}title") is not None
    assert MARKUP in "".join(ET.fromstring(drawn).itertext())
    text = comparison_page(found)
    assert "<b>" not in text and "\\|" in text


@pytest.mark.parametrize("top1", [0.5, None])
def test_title_legend_and_error_bars_are_within_the_plot(top1: float | None) -> None:
    rows = [row(f"method-{number}", ratio=0.5 + 0.1 * number, loss=loss(0.01, top1, 0.2)) for number in range(9)]
    drawn = ET.fromstring(
        plot_comparison(made([row("dense", **DENSE | {"loss": loss(0.0, top1)}), *rows], title="a long title " * 9))
    )
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    names = [group for group in drawn.iterfind(".//{*}g") if (group.findtext("{*}text") or "").startswith("method-")]
    places = [tuple(map(float, group.attrib["transform"][10:-1].split())) for group in names]
    assert len(places) == len(set(places)) == 9
    assert all(x + 96 <= width and y < height for x, y in places)
    titles = [text for text in drawn.findall("{*}text") if text.attrib.get("font-size") == "14"]
    assert len(titles) > 1 and all(float(text.attrib["y"]) < places[0][1] for text in titles)
    bars = [path.attrib["d"] for path in drawn.iterfind(".//{*}path") if path.attrib.get("class") == "bar"]
    tops = [float(bar.partition("v")[0].split()[1]) for bar in bars]
    assert bars and all(
        top >= 0 and top + float(bar.partition("v")[2]) <= 200 for top, bar in zip(tops, bars, strict=True)
    )


@pytest.mark.parametrize(
    ("values", "logarithmic", "ticks"),
    [
        ([0.5, 1.0], False, [0.6, 0.8, 1.0]),
        ([1e-5, 1e-1], True, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        ([90.0, 90.0], False, [86.0, 88.0, 90.0, 92.0, 94.0]),
        ([0.0], False, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    ],
)
def test_axes(values: list[float], logarithmic: bool, ticks: list[float]) -> None:
    axis = Axis.of(values, logarithmic)
    assert axis.ticks() == pytest.approx(ticks)
    assert all(0 < axis.share(value) < 1 for value in values)


def test_files_of_the_users_stay(tmp_path: Path) -> None:
    found = made([row("dense", **DENSE), row()])
    write_comparison(found, tmp_path)
    write_comparison(found, tmp_path)  # ours
    for text in ("{}", "[", '{"format": "another"}'):
        (tmp_path / "compare.json").write_text(text, encoding="utf-8")
        with pytest.raises(OutputError, match=r"compare\.svg, compare\.md, compare\.json"):
            compare("digits", tmp_path, options=CompareOptions(**QUICK))
        assert (tmp_path / "compare.json").read_text("utf-8") == text
    (tmp_path / "compare.json").unlink()
    with pytest.raises(OutputError, match=r"compare\.svg, compare\.md, not"):
        compare("digits", tmp_path, options=CompareOptions(**QUICK))


def test_features_and_maps_are_compared_by_their_own_metrics(small: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"methods": ("tome",), "budgets": (Budget(num_prop=8),), **QUICK}
    features = compare(str(small), tmp_path / "one", options=CompareOptions(output="features", **given))
    dense, reduced = (row.loss for row in features.rows)
    assert dense is not None and reduced is not None
    assert (reduced.quality, reduced.metric, reduced.agreement) == ("k-NN top-1", "relative error", None)
    assert (dense.distance, dense.top1, dense.measures["mAP"]) == (0, reduced.dense_top1, reduced.measures["dense mAP"])
    assert features.rows[1].command[-2:] == ["--output", "features"]
    page = comparison_page(features)
    assert "k-NN top-1" in page and "relative error" in page and "divergence" not in page.lower()
    given |= {"output": "map", "layers": (0, 1), "metric": furthest}
    maps = compare(str(small), tmp_path / "two", options=CompareOptions(**given))
    assert [row.loss.top1 for row in maps.rows if row.loss] == [None, None]
    assert "furthest, steps" in plot_comparison(maps) and maps.rows[1].distance > 0
    document = json.loads((tmp_path / "two" / "compare.json").read_text("utf-8"))
    assert document["rows"][1]["metric"] == "furthest" and "correlation of map_1" in document["rows"][1]["measures"]


def furthest(dense: Any, outputs: Any, labels: Any) -> Any:
    assert set(dense) == set(outputs) == {"map_0", "map_1"}
    return np.abs(dense["map_1"] - outputs["map_1"]).max((1, 2, 3))


furthest.unit = "steps"  # type: ignore[attr-defined]


def test_no_backend_runs_the_precision(small: Path, tmp_path: Path) -> None:
    options = CompareOptions(methods=("tome",), precisions=("bf16",), **QUICK)
    with pytest.raises(BackendMissingError, match="no kernels"):
        compare(str(small), tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_runtime.extras.is_installed", lambda module: False)
    with pytest.raises(BackendMissingError, match=r"openvino .*pip install 'gtp-export"):
        make_runnings(["openvino"], ["fp32"], {}, {})


def test_nothing_fits() -> None:
    recipe = replace(TINY, gtp={})
    with pytest.raises(ConfigError, match=r"tome at 40 "):
        plan_cases(recipe, outline(recipe), ["tome"], [Budget(num_prop=40)])


WRONG = {  # options, and what the error names
    "--methods tome,best": "best",
    "--methods dense": "dense",
    "--methods ,": "methods",
    "--budgets ,": "budgets",
    "--budgets 1.5": "1.5",
    "--budgets much": "--budgets",
    "--num-prop 0": "num_prop",
    "--num-prop 3.5": "--num-prop",
    "--num-prop 3 --budgets 0.5": "--budgets",
    "--num-prop 50 --methods paper": "paper at 50",
    "--backends cpu": "cpu",
    "--backends tensorrt": "tensorrt",
    "--precisions int4": "int4",
    "--threads 999": "threads",
    "--timing-cache x": "--timing-cache",
    "--backends openvino --provider cuda": "provider",
    "--labels val.txt": "--data",
    "--class-order timm": "--data",
    "--calib-data images --methods tome": "calib_data",
    "--seed 3": "--seed",
    "--data nowhere": "nowhere",
    "--rounds 0": "--rounds",
}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_options(options: str, command: Command) -> None:
    ran = command("compare", "digits", *options.split())
    assert ran.code in ((1,) if "nowhere" in options else (2,)), ran.err
    assert WRONG[options] in ran.error
    assert not Path("build").exists()


def test_images_are_needed(command: Command) -> None:
    ran = command("compare", "deit_ti", "--weights", "random")
    assert (ran.code, "--data" in ran.error) == (2, True)
    ran = command("compare", "deit_ti", "--weights", "random", "--data", DIGITS / "images", "--precisions", "int8")
    assert (ran.code, "--calib-data" in ran.error) == (2, True)


@pytest.mark.full
def test_the_command_shows_tables_and_the_next_one(command: Command) -> None:
    ran = command(
        "compare", "digits", "--methods", "tome", "--budgets", "0.7", "--limit", 10, "--seconds", 0, "--rounds", 1
    )
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "10 images (the recipe's own)" in lines[0] and lines[0].endswith("weights: pretrained (weights.safetensors)")
    assert lines[1] == "onnxruntime fp32, threads 1, batch 1"
    assert [line.split()[0] for line in lines[2:5]] == ["method", "dense", "tome"]
    assert lines[-2] == "wrote build/digits-compare: compare.json compare.md compare.svg"
    assert ran.last == "next: gtp-export export digits --method tome --keep 0.7"
    assert Path("build/digits-compare/compare.svg").exists()


@pytest.mark.full
def test_calibration_images_are_for_those_that_need_them(tmp_path: Path) -> None:
    """A recipe without calibration images of its own: the folder goes to int8, and not to the float32 baseline."""
    recipe = replace(load_recipe("digits"), calibration=None)
    wanted: dict[str, Any] = {"methods": ("tome",), "budgets": (Budget(keep=0.7),), "precisions": ("fp32", "int8")}
    options = CompareOptions(**wanted, calib_data=DIGITS / "calibration", limit=40, **QUICK)
    found = compare(recipe, tmp_path / "out", options=options)
    assert [(row.name, row.precision) for row in found.rows] == [
        *(("dense", "fp32"), ("dense", "int8")),
        *(("tome", "fp32"), ("tome", "int8")),
    ]
    sizes = {(row.name, row.precision): row.cost.file_bytes for row in found.rows if row.cost is not None}
    assert sizes["tome", "int8"] < 0.6 * sizes["tome", "fp32"]
    with pytest.raises(LimitError):
        compare(recipe, tmp_path / "out", options=replace(options, calib_data=None))


def test_a_candidate_says_what_it_needs() -> None:
    recipe = load_recipe("digits")
    model = outline(recipe)
    plans = [plan_cases(recipe, model, ["tome"], [Budget(keep=keep)]).others[0].plan for keep in (0.7, 0.8)]
    plain, int8 = (Candidate("tome", plans[0], Running(written=name, precision=name)) for name in ("fp32", "int8"))
    assert (plain.needs_calibration, int8.needs_calibration) == (False, True)
    others = [int8, replace(plain, batch=2), replace(plain, plan=plans[1]), replace(plain, running=Running("openvino"))]
    for name in ("key", "shape_key"):
        assert len({getattr(candidate, name) for candidate in (plain, *others)}) == 5
    assert plain.graph_key == others[-1].graph_key, "one graph serves two backends"
    assert replace(plain, name="another").key == plain.key


def timed(p50_ms: float, dense_ms: float = 10.0, spread: float = 0.0) -> Timing:
    return Timing(p50_ms, dense_ms, spread)


@pytest.mark.parametrize(
    ("ratio", "macs", "doubtful"),
    [(0.34, 0.77, True), (0.78, 0.77, False), (0.65, 0.77, False), (0.99, 0.77, False), (1.97, 0.77, True)],
)
def test_a_timing_may_contradict_its_macs(ratio: float, macs: float, doubtful: bool) -> None:
    assert contradicts(timed(10 * ratio), macs) is doubtful
    assert not contradicts(timed(10 * ratio), None)


def test_what_contradicts_its_macs_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter([0.34, 0.36, 0.8, 0.5])
    monkeypatch.setattr(
        "gtp_exporters.measuring.latency.time_in_turn", lambda *_: [timed(10.0), timed(10 * next(ratios))]
    )
    found = time_plausibly([Path(), Path()], [Running()] * 2, [1.0, 0.77], 0.0)
    assert [timing.ratio for timing in found] == [1.0, 0.36], "the middle one of three"
    assert next(ratios) == 0.5


def test_noise_makes_no_figure() -> None:
    assert share_of(timed(8.0), timed(10.0), 0.75) == pytest.approx(0.8)
    assert share_of(timed(8.0, spread=0.8), timed(10.0), 0.75) is None
    assert share_of(timed(8.0), timed(10.0, spread=0.8), 0.75) is None
    text = comparison_page(made([row("dense", **DENSE), row(timing=timed(8.0, spread=0.8), share=None)]))
    assert "~8.00" in text and "Noise" in text
    assert "Noise" not in comparison_page(made([row("dense", **DENSE), row()]))


def test_budgets_are_checked() -> None:
    wrong: Any = [0.75]
    with pytest.raises(LimitError):
        CompareOptions(budgets=wrong)
