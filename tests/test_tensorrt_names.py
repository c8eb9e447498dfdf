"""Every name of TensorRT's that we use exists in the versions that we support: lists taken from the real wheels."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    *(ROOT / f"runtime/gtp_runtime/backends/tensorrt/{name}.py" for name in ("backend", "flavor")),
    *(ROOT / "exporters/gtp_exporters/tensorrt").glob("*.py"),
]
LISTS = {path.stem: set(path.read_text("utf-8").split()) for path in (ROOT / "tests/tensorrt_names").glob("*.txt")}
# what we call objects of TensorRT's
OBJECTS = set("trt builder config network parser runtime engine inspector cache kinds error severity".split())
OBJECTS |= {"_engine", "_execution", "_runtime", "_cache", "NetworkDefinitionCreationFlag", "ILogger", "Severity"}
OBJECTS |= {"MemoryPoolType", "ProfilingVerbosity", "LayerInformationFormat", "ComputeCapability"}
OVERRIDDEN = {"log", "phase_start", "phase_finish", "step_complete"}
NOT_TENSORRTS = {"flavor", "onnx", "_cache", "errno", "strerror", "errors", "warnings", "__init__", "__members__"}
RTX_ONLY = {
    "ComputeCapability",
    "create_runtime_cache",
    "create_runtime_config",
    "deserialize",
    "num_compute_capabilities",
    "set_compute_capability",
    "set_runtime_cache",
}


def used_names() -> set[str]:
    found = set(OVERRIDDEN)
    for path in SOURCES:
        found |= set(names_in(ast.parse(path.read_text("utf-8"))))
    return found - NOT_TENSORRTS


def names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and terminal(node.value) in OBJECTS:
            yield node.attr
        if (
            isinstance(node, ast.Call)
            and terminal(node.func) in ("getattr", "hasattr")
            and terminal(node.args[0]) in OBJECTS
        ):
            assert isinstance(node.args[1], ast.Constant)
            yield str(node.args[1].value)


def unknown(names: set[str], version: str) -> set[str]:
    """A linker stores a string that ends another one (Builder, IBuilder) only once."""
    return {name for name in names if not any(listed.endswith(name) for listed in LISTS[version])}


def terminal(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def test_the_walk_finds_what_it_should() -> None:
    expected = {
        "build_serialized_network",
        "execute_async_v3",
        "STRONGLY_TYPED",
        "deserialize_cuda_engine",
        "WORKSPACE",
    }
    assert expected | RTX_ONLY <= used_names()


@pytest.mark.parametrize("version", ["10.3", "10.13", "11.4"])
def test_every_name_exists(version: str) -> None:
    assert unknown(used_names() - RTX_ONLY, version) == set()


def test_every_name_exists_in_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    names = set(dir(trt))
    for kind in [value for value in vars(trt).values() if inspect.isclass(value)]:
        names |= set(dir(kind))
        names |= set(dir(kind.Severity)) if hasattr(kind, "Severity") else set()
    assert used_names() - names == set()


def test_a_misspelt_name_would_be_caught() -> None:
    wrong = set(names_in(ast.parse("config.set_memory_pool_limits(1)")))
    assert unknown(wrong, "10.3") == wrong
