"""The TensorRT that is installed here, what it logs, and whether an engine fits it and the GPU.

There are two flavours, the full one (10.3 to 11.x) and TensorRT-RTX.

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

from gtp_runtime.errors import BackendMissingError, EngineMismatchError, InputError
from gtp_runtime.extras import install_command
from gtp_runtime.manifest import EngineInfo

log = logging.getLogger(__name__)
MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
MOST = 100  # messages of a kind that are kept
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
        flavor = _import(name)
        if flavor is not None:
            return flavor
    raise BackendMissingError(
        "TensorRT is not installed: on a Jetson it comes with JetPack, into a venv made with --system-site-packages; "
        f"elsewhere {install_command('tensorrt')}, or {install_command('tensorrt-rtx')} for RTX GPUs and for building "
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


def make_logger(trt: Any) -> Any:
    """Return a ``trt.ILogger`` that prints nothing: its ``warnings`` and ``errors`` are lists of messages."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the latest warnings and errors in order: an engine may run for months."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            kinds = trt.ILogger.Severity
            kept = self.errors if severity in (kinds.INTERNAL_ERROR, kinds.ERROR) else self.warnings
            if kept is self.errors or severity == kinds.WARNING:
                kept.append(msg.strip())
                del kept[:-MOST]

    return Logger()


def check_version(info: EngineInfo, flavor: Flavor, rebuild: str) -> None:
    """Check that the installed TensorRT can read the engine, to give a clearer message than TensorRT does.

    Args:
        info: how it was built.
        flavor: what is installed here.
        rebuild: the command that builds it again.

    Raises:
        EngineMismatchError: another flavour or version; says what was built where and how to rebuild.
    """
    if info.flavor != flavor.name or release(info.version) != release(flavor.version):
        raise EngineMismatchError(
            f"the engine was built with {_built_by(info)}, but {flavor.name} {flavor.version} is installed: "
            f"an engine runs only with the release that built it; rebuild it here with: {rebuild}"
        )


def check_device(info: EngineInfo, device: dict[str, Any], rebuild: str) -> None:
    """Check that this GPU is one that the engine was built for.

    Args:
        info: how it was built.
        device: the GPU here, as ``Cuda.describe`` returns it.
        rebuild: the command that builds it again.

    Raises:
        EngineMismatchError: another GPU.
    """
    here = device["compute_capability"]
    sm = "sm" + here.replace(".", "")
    if info.targets:
        fits = sm in info.targets
    elif info.flavor == "rtx":
        fits = float(here) >= 8.0
    else:
        fits = info.compute_capability in (None, here)
    if not fits:
        built_for = ", ".join(info.targets) or info.compute_capability or "Ampere and later"
        raise EngineMismatchError(
            f"the engine was built for {built_for} ({info.gpu or 'without a GPU'}), but this GPU is {device['gpu']} "
            f"({sm}): rebuild it here with: {rebuild}"
        )


def _built_by(info: EngineInfo) -> str:
    where = f" on {info.gpu}" if info.gpu else ""
    jetpack = f", {info.jetpack}" if info.jetpack else ""
    return f"{info.flavor} {info.version}{where}{jetpack}"
