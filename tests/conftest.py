"""Checks the shapes in the signatures of GTP's maths while testing (jaxtyping with beartype)."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # several workers' threads that wait for each other by spinning take ages

from jaxtyping import install_import_hook

FRAME = [f"frame.{name}" for name in ("attention", "blocks", "tokens", "trace")]
GTP = [f"methods.gtp.{name}" for name in ("axes", "blocks", "graphs", "propagations", "selections", "sparsity")]
MATHS = [f"gtp_models.{name}" for name in (*FRAME, *GTP, "methods.tome")]
install_import_hook(MATHS, "beartype.beartype")

import gtp_models  # noqa: E402, F401 - from here on timm can be imported beside any torchvision

pytest_plugins = ["artifacts", "scripts", "tracing"]
