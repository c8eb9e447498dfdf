"""Every method's graph is static, answers as eager PyTorch does, and becomes a TensorRT engine."""

from pathlib import Path
from typing import Any

import pytest
from artifacts import TINY
from helpers import METHOD_CASES, PREFIXES, settings_of, tiny_vit
from onnx_graphs import check_answers, graph_of, operators

from gtp_exporters import EngineOptions, ExportOptions, build_engine, export
from gtp_models.methods.apply import apply
from gtp_runtime import load
from gtp_runtime.errors import RandomWeightsWarning

SCATTERING = {"ScatterElements", "ScatterND", "GatherElements", "GatherND"}
Form = tuple[str, Any, str, int]
FORMS: dict[str, Form] = {
    "tome-batch": ("tome", (0, 4), "5 prefix", 3),
    "tome-all": ("tome", (8, 0), "no prefix", 1),  # no token of the even set stays
    "drop": ("drop", 3, "1 prefix", 1),
}
FULL: dict[str, Form] = {
    f"{method}-{prefix}-{batch}": (method, 3, prefix, batch)
    for method in METHOD_CASES
    for prefix in PREFIXES
    for batch in (1, 3)
} | {
    "tome-schedule": ("tome", (3, 0, 4), "1 prefix", 1),
    "tome-all-batch": ("tome", (8, 0), "no prefix", 3),
    "tome-all-prefix": ("tome", (8, 4), "1 prefix", 1),
}


def check_form(method: str, num_prop: Any, prefix: str, batch: int) -> None:
    depth = len(num_prop) if isinstance(num_prop, tuple) else 2
    model = tiny_vit(**PREFIXES[prefix], depth=depth)
    apply(model, settings_of(method, num_prop))
    graph = graph_of(model, batch)
    traced = check_answers(graph, model, batch)
    assert traced == (method not in ("drop", "dense")), "what is not selected needs no trace"
    assert not operators(graph) & SCATTERING
    assert ("TopK" in operators(graph)) == traced


@pytest.mark.parametrize("form", FORMS)
def test_onnx_equals_eager(form: str) -> None:
    check_form(*FORMS[form])


@pytest.mark.full
@pytest.mark.parametrize("form", FULL)
def test_onnx_equals_eager_in_every_form(form: str) -> None:
    check_form(*FULL[form])


def check_engine(directory: Path, method: str, batch: int) -> None:
    pytest.importorskip("tensorrt_rtx")
    options = ExportOptions(batch=batch, dense=False, target="tensorrt")
    settings = settings_of(method)
    exported = export(TINY, directory, weights="random", options=options, settings=settings, check=False)
    entry = exported.manifest.entry("model.onnx")
    assert exported.manifest.method == entry.method == settings.name
    assert (exported.manifest.settings, entry.macs > 0) == (settings.described(), True)
    with pytest.warns(RandomWeightsWarning), load(directory) as model:
        assert model.validate().ok
    engine = build_engine(directory, flavor="rtx", options=EngineOptions(targets=("sm86",)))
    assert engine.entry.size == engine.path.stat().st_size > 100_000
    assert (engine.entry.method, engine.entry.inputs[0].shape[0]) == (settings.name, batch)


def test_an_engine_of_merging_builds(tmp_path: Path) -> None:
    check_engine(tmp_path / "tiny", "tome", 1)


@pytest.mark.full
@pytest.mark.parametrize("method", METHOD_CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_engine_of_every_method_builds(tmp_path: Path, method: str, batch: int) -> None:
    check_engine(tmp_path / "tiny", method, batch)
