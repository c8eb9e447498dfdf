"""Real TensorRT-RTX engines, built ahead of time on a machine without a GPU."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from helpers import VARIANTS, tiny_vit
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gtp_exporters import EngineOptions, ExportOptions, QuantizeOptions, build_engine, export, quantize
from gtp_exporters.errors import EngineError, LimitError, StaticCheckError
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.precision import to_precision
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_exporters.tensorrt.building import build
from gtp_models import GTPConfig, Recipe
from gtp_models.methods.apply import apply
from gtp_runtime.backends.tensorrt.flavor import find_flavor
from gtp_runtime.errors import BackendMissingError, ManifestError, OutputError
from gtp_runtime.manifest import read_manifest
from gtp_runtime.messages import quiet
from gtp_runtime.precisions import converted_names

pytest.importorskip("tensorrt_rtx")
TARGETS = EngineOptions(targets=("sm86", "sm120"))
PRECISIONS = converted_names("tensorrt")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_digits_for_two_targets(digits_copy: Path, precision: str) -> None:
    engine = build_engine(digits_copy, precision=precision, flavor="rtx", options=TARGETS)
    info = engine.entry.engine
    assert info is not None
    assert engine.path == digits_copy / "model.engine"
    assert engine.path.stat().st_size == engine.entry.size > 1_000_000
    assert (engine.entry.precision, info.flavor, info.targets) == (precision, "rtx", ["sm86", "sm120"])
    assert 500 < info.layers < 1500
    assert info.inspector is None
    assert read_manifest(digits_copy).entry("model.engine") == engine.entry


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_dense_and_a_name_of_its_own(digits_copy: Path, precision: str) -> None:
    output = digits_copy / f"dense_{precision}.engine"
    engine = build_engine(digits_copy / "dense.onnx", output, precision=precision, flavor="rtx", options=TARGETS)
    assert (engine.entry.role, engine.entry.precision) == ("dense", precision)
    assert engine.entry.engine is not None
    assert engine.entry.engine.onnx == "dense.onnx"
    assert engine.entry.engine.layers < 400
    assert output.exists()


@pytest.mark.full
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("model", ["digits", "deit_s"])
def test_every_engine(tmp_path: Path, model: str, batch: int) -> None:
    weights = "pretrained" if model == "digits" else "random"
    directory = export(
        model, tmp_path / model, weights=weights, options=ExportOptions(batch=batch, target="tensorrt"), check=False
    ).directory
    for name in ("model", "dense"):
        for precision in PRECISIONS:
            output = directory / f"{name}_{precision}.engine"
            engine = build_engine(
                directory / f"{name}.onnx", output, precision=precision, flavor="rtx", options=TARGETS
            )
            assert engine.entry.size > 1_000_000
            assert engine.entry.inputs[0].shape[0] == batch
    if model == "digits":
        quantize(directory, QuantizeOptions("tensorrt"))
        for name in ("model", "dense"):
            engine = build_engine(directory / f"{name}.int8.onnx", flavor="rtx", options=TARGETS)
            assert (engine.entry.precision, engine.entry.inputs[0].shape[0]) == ("int8", batch)


@pytest.mark.full
@pytest.mark.parametrize("settings", [{"selection": "CosSimMax"}, {"propagation": "Mean"}, {"sparsity": 0.5}])
def test_other_settings_build(tmp_path: Path, settings: dict[str, object]) -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
    recipe = Recipe("tiny", "", "vit_tiny_patch16_224", {"num_prop": 2, "num_neighbours": 4, **settings}, arguments)
    directory = export(
        recipe, tmp_path / "tiny", weights="random", options=ExportOptions(batch=2, target="tensorrt"), check=False
    ).directory
    for precision in PRECISIONS:
        assert build_engine(directory, precision=precision, flavor="rtx", options=TARGETS).entry.size


@pytest.mark.full
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_of_model_builds(kind: str) -> None:
    model = apply(tiny_vit(**VARIANTS[kind]), GTPConfig(num_prop=2, num_neighbours=4))
    graph = infer_shapes(simplify(to_onnx(Traced(model, True), 1, 20)[0])[0])
    check_static(graph)
    for precision in ("fp32", "fp16"):
        assert build(find_flavor("rtx"), to_precision(graph, precision), TARGETS, quiet).plan


BUILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start without it
from gtp_exporters import build_engine
from gtp_runtime.precisions import converted_names
def tell(task, share=None):
    if task.startswith("building the engine"):
        print("building", flush=True)
        time.sleep(0.3)
build_engine(sys.argv[1], flavor="rtx", progress=tell)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_stops_and_leaves_nothing(digits_copy: Path, number: signal.Signals, code: int) -> None:
    before = sorted(path.name for path in digits_copy.iterdir())
    roots = os.pathsep.join(str(ROOT / part) for part in ("", "exporters", "runtime", "models"))
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, digits_copy], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": roots}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        process.send_signal(number)
        assert process.wait(60) == code
    assert sorted(path.name for path in digits_copy.iterdir()) == before


def graph_of(*nodes: NodeProto, **constants: np.ndarray) -> ir.Model:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 50]) for name in "xy")
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(list(nodes), "test", [x], [y], initializers)
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def test_what_the_parser_refuses_is_said_in_our_words() -> None:
    constants = {"i": np.zeros((1, 3), np.int64), "u": np.ones((1, 3), np.float32)}
    scatters = [
        helper.make_node("ScatterElements", [start, "i", "u"], [end], name=name, axis=1, reduction="add")
        for start, end, name in (("x", "a", "merge_1"), ("a", "b", "merge_2"))
    ]
    unknown = helper.make_node("Unique", ["b"], ["y"], name="distinct")
    with pytest.raises(EngineError) as caught:
        build(find_flavor("rtx"), graph_of(*scatters, unknown, **constants), TARGETS, quiet)
    first, second, third = str(caught.value).splitlines()
    assert first == "TensorRT cannot parse the graph:"
    assert second.startswith(
        "  ScatterElements 'merge_1', 'merge_2': Unsupported reduction type; scatter with a reduction is not supported"
    )
    assert third.startswith("  Unique 'distinct': this TensorRT does not know the operator")


def test_a_graph_over_the_limits_is_refused_before_tensorrt_is_asked(digits_copy: Path) -> None:
    model = Recipe(
        "big",
        "",
        "vit_tiny_patch16_224",
        {"num_prop": 1, "sparsity": 0.5},
        {"depth": 1, "embed_dim": 24, "num_heads": 3},
    )
    directory = export(
        model,
        digits_copy.parent / "big",
        weights="random",
        options=ExportOptions(target="onnxruntime", dense=False),
        check=False,
    ).directory
    with pytest.raises(StaticCheckError, match=r"TopK .*3840"):
        build_engine(directory, flavor="rtx", options=TARGETS)


def test_wrong_options(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitError, match=r"sm42: .*sm86"):
        build_engine(digits_copy, flavor="rtx", options=EngineOptions(targets=("sm42",)))
    with pytest.raises(LimitError, match="opt_level=9: .*0 to 5"):
        EngineOptions(opt_level=9)
    with pytest.raises(LimitError, match="workspace 0 MiB"):
        EngineOptions(workspace=0)
    with pytest.raises(LimitError, match=r"ends in \.engine"):
        build_engine(digits_copy, digits_copy / "model.plan", flavor="rtx")
    with pytest.raises(OutputError):
        build_engine(digits_copy, digits_copy.parent / "model.engine", flavor="rtx")
    with pytest.raises(BackendMissingError, match="TensorRT"):
        build_engine(digits_copy, flavor="tensorrt")
    shutil.copy(digits_copy / "dense.onnx", digits_copy / "other.onnx")
    with pytest.raises(ManifestError, match=r"not list other\.onnx"):
        build_engine(digits_copy / "other.onnx", flavor="rtx")


def test_all_options_are_taken_and_recorded(digits_copy: Path, tmp_path: Path) -> None:
    options = EngineOptions(workspace=256, opt_level=2, timing_cache=tmp_path / "cache" / "timing", targets=("sm89",))
    info = build_engine(digits_copy, flavor="rtx", options=options).entry.engine
    assert info is not None
    assert info.options == {"workspace": 256, "opt_level": 2, "timing_cache": None}
