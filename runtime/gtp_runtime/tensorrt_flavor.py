"""The two flavours of TensorRT, 10.3 to 11.x of the full one and TensorRT-RTX, and where they differ.

Both have the same Python API in what we use. Differences:

- module: ``tensorrt`` or ``tensorrt_rtx``
- RTX builds for chosen compute capabilities on a machine without a GPU, and compiles kernels where it runs, so it has
  a runtime cache in place of a timing cache
- networks are strongly typed by a flag in 10.x and RTX; from 11 on all are and the flag may be gone
- ``device_memory_size_v2`` came with 10.1; ``EDITABLE_TIMING_CACHE`` with 10.8
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from gtp_runtime.errors import BackendMissingError, InputError

log = logging.getLogger(__name__)
MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
OLDEST = (10, 3)  # strongly typed networks and opset 20, as JetPack 6.1 ships


@dataclass(frozen=True)
class Flavor:
    """An importable TensorRT: "tensorrt" or "rtx", its module and its version."""

    name: str
    trt: Any
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX."""
        return self.name == "rtx"

    def network_flags(self) -> int:
        """Flags of a strongly typed network, where the flag still exists."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)


def find_flavor(wanted: str = "auto") -> Flavor:
    """Import a flavour; "auto" takes the full TensorRT where it is installed, else RTX.

    Raises:
        InputError: an unknown flavour.
        BackendMissingError: neither is installed, or the installed one is too old.
    """
    if wanted not in ("auto", *MODULES):
        raise InputError(f"flavor={wanted!r} is unknown: choose one of auto, {', '.join(MODULES)}")
    for name in MODULES if wanted == "auto" else (wanted,):
        found = _import(name)
        if found is not None:
            return found
    raise BackendMissingError(
        "TensorRT is not installed: on a Jetson it comes with JetPack, into a venv made with --system-site-packages; "
        "elsewhere pip install 'gtp-export[tensorrt]', or 'gtp-export[tensorrt-rtx]' for RTX GPUs and for building "
        "without a GPU"
    )


def _import(name: str) -> Flavor | None:
    try:
        module = importlib.import_module(MODULES[name])
    except ImportError as error:  # not installed, or its libraries are missing
        log.info("%s cannot be imported: %s", MODULES[name], error)
        return None
    version = str(module.__version__)
    if name == "tensorrt" and release(version) < OLDEST:
        raise BackendMissingError(
            f"TensorRT {version} is too old: strongly typed networks and ONNX opset 20 need 10.3 or newer (JetPack 6.1)"
        )
    return Flavor(name, module, version)


def release(version: str) -> tuple[int, int]:
    """Return (major, minor) of a version."""
    major, minor = (*version.split("."), "0")[:2]
    return int(major), int(minor)
