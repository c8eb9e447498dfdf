"""Imports stay light and run one way down; the public names are what they claim."""

import ast
import graphlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts import COMMANDS, ROOT, python

EXPORT = {"torch", "torchvision", "timm", "onnx", "onnxscript", "onnxsim"}
ENGINES = {"onnxruntime", "openvino", "pycuda", "tensorrt", "tensorrt_rtx", "executorch", "coremltools"}
HEAVY = EXPORT | ENGINES | {"ray"}
PACKAGES = {
    "gtp_runtime": ROOT / "runtime",
    "gtp_models": ROOT / "models",
    "gtp_exporters": ROOT / "exporters",
    "gtp_export": ROOT,
}
FORBIDDEN = {
    "gtp_runtime": {"gtp_models", "gtp_exporters", "gtp_export", *EXPORT},
    "gtp_models": {"gtp_exporters", "gtp_export", *ENGINES, "onnx", "onnxscript", "onnxsim"},
    "gtp_exporters": {"gtp_export"},
}
ENGINES_OF_TORCH = {("executorch.py", "torch")}  # its Python package takes PyTorch's tensors alone
LOADED = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def sources(package: str) -> list[Path]:
    return sorted((PACKAGES[package] / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports hide where a name comes from"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    ran = python(f"import {package}; {LOADED}")
    assert ran.code == 0, ran.err
    assert not HEAVY & set(ran.out.split())


@pytest.mark.parametrize("arguments", [["--help"], ["models"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_and_models_load_nothing_heavy(arguments: list[str]) -> None:
    run = f"import runpy; sys.argv[1:] = {arguments}\ntry: runpy.run_module('gtp_export', run_name='__main__')"
    ran = python(f"{run}\nexcept SystemExit as stop: assert not stop.code\n{LOADED}")
    assert ran.code == 0, ran.err
    *shown, loaded = ran.out.splitlines()
    assert len(shown) > 5
    assert not HEAVY & set(loaded.split())


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_sorted_and_there(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_ray_is_imported_in_one_place() -> None:
    found = {path.name for package in PACKAGES for path in sources(package) if "ray" in imported(path)}
    assert found == {"cluster.py"}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way_down(package: str) -> None:
    found = {(path.name, name) for path in sources(package) for name in imported(path)} - ENGINES_OF_TORCH
    assert [use for use in found if use[1] in FORBIDDEN[package]] == []


def modules() -> dict[str, Path]:
    """Return every module of the product and its file."""
    return {
        ".".join(path.relative_to(PACKAGES[package]).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sources(package)
    }


def needed(path: Path, names: set[str]) -> set[str]:
    """Return the modules that a file imports anywhere: lazily and for type checking as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in names else str(node.module) for name in submodules}
    return found & names


def test_no_module_imports_itself_through_others() -> None:
    files = modules()
    graph = {name: needed(path, set(files)) - {name} for name, path in files.items()}
    graphlib.TopologicalSorter(graph).prepare()  # it names a circle in its error


def test_the_product_is_walkable() -> None:
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules().items()}
    assert len(sizes) <= 242
    assert max(sizes.values()) <= 520
