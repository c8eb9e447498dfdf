"""Checks the shapes in the signatures of GTP's maths while testing (jaxtyping with beartype)."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # several workers' threads that wait for each other by spinning take ages

from collections.abc import Generator
from typing import Any

import pytest
from jaxtyping import install_import_hook

FRAME = [f"frame.{name}" for name in ("attention", "blocks", "tokens", "trace")]
GTP = [f"methods.gtp.{name}" for name in ("axes", "blocks", "graphs", "propagations", "selections", "sparsity")]
MATHS = [f"gtp_models.{name}" for name in (*FRAME, *GTP, "methods.tome")]
install_import_hook(MATHS, "beartype.beartype")

import gtp_models  # noqa: E402, F401 - from here on timm can be imported beside any torchvision

pytest_plugins = ["artifacts", "scripts", "tracing"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Escape what is no UTF-8 in what a test printed: a worker cannot send it."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report
