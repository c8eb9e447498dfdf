"""Qualcomm's NPU (Hexagon Tensor Processor) by ONNX Runtime's plug-in; on x86 the plug-in simulates it, slowly.

A ``.qnn`` file is an ONNX graph of one node that holds a context: the model, compiled by Qualcomm's libraries for one
SoC. Like a TensorRT engine it is code for a device: it runs only if the manifest lists its sha256.
"""

import platform
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_runtime.backends.onnxruntime import OnnxRuntimeBackend, import_onnxruntime, tensor_of
from gtp_runtime.backends.spec import BACKENDS, BackendSpec, check_tensors
from gtp_runtime.errors import BackendMissingError, DeviceError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import one_line
from gtp_runtime.opening import named_in_utf8
from gtp_runtime.placement import Placement

EXTRA = Extra("qnn", {"onnxruntime": "onnxruntime", "onnxruntime_qnn": "onnxruntime-qnn"})
PROVIDER = "QNNExecutionProvider"
WHOLE = "session.disable_cpu_ep_fallback"  # nothing runs on the CPU in silence
_registering = threading.Lock()


@dataclass(frozen=True)
class QnnOptions:
    """How the plug-in runs a file: it has no options."""


class QnnBackend(OnnxRuntimeBackend):
    """A context in a session of the plug-in; nothing of it runs on the CPU.

    Args:
        path: the .qnn file.
        entry: what the manifest says of it.
        options: none.

    Raises:
        BackendMissingError: onnxruntime or onnxruntime-qnn is not installed.
        DeviceError: the plug-in finds no device for it, as for a context of another SoC.
        ManifestError: its tensors are not those that the manifest says.
    """

    name = "qnn"

    def __init__(self, path: Path, entry: FileEntry, options: QnnOptions) -> None:  # noqa: ARG002
        ort = import_onnxruntime()
        settings, version = session_settings(ort)
        self._ort, self._name = ort, path.name
        try:
            with named_in_utf8(path) as place:
                self._session = ort.InferenceSession(str(place), settings)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise DeviceError(f"QNN cannot load {path}: {one_line(error)}") from error
        if PROVIDER not in self._session.get_providers():
            raise ManifestError(f"{path} holds no context of QNN: make it again with gtp-export build-engine")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_tensors(path, map(tensor_of, inputs), map(tensor_of, outputs), entry)
        self._outputs = [output.name for output in outputs]
        self.info: dict[str, Any] = {"version": version, "onnxruntime": ort.__version__, "simulated": is_simulated()}

    def placement(self) -> Placement | None:
        """Return None: a context runs whole on the NPU."""
        return None


def is_simulated() -> bool:
    """Whether this machine has no NPU of Qualcomm's, and the plug-in simulates one."""
    return platform.machine().lower() in ("x86_64", "amd64")


def session_settings(ort: Any, **options: str) -> tuple[Any, str]:
    """Return the options of a session that runs on the NPU whole or not at all, and the plug-in's version.

    Args:
        ort: the module onnxruntime.
        options: of the provider, beside the library of the NPU.

    Raises:
        BackendMissingError: the plug-in is missing, or too old an ONNX Runtime for it.
        DeviceError: it finds no device here.
    """
    try:
        import onnxruntime_qnn
    except ImportError as error:
        raise BackendMissingError(f"onnxruntime-qnn is not installed: {EXTRA.command}") from error
    with _registering:
        devices = _devices(ort)
        if not devices:
            _register(ort, onnxruntime_qnn.get_library_path())
            devices = _devices(ort)
    if not devices:
        raise DeviceError(
            "onnxruntime-qnn finds no device here: it runs on Snapdragon devices and simulates them on x86"
        )
    settings = ort.SessionOptions()
    settings.log_severity_level = 3  # errors: the simulator warns of what it is
    settings.add_session_config_entry(WHOLE, "1")
    settings.add_provider_for_devices(devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **options})
    return settings, onnxruntime_qnn.__version__


def _register(ort: Any, library: str) -> None:
    try:
        ort.register_execution_provider_library(PROVIDER, library)
    except AttributeError as error:
        raise BackendMissingError(
            f"onnxruntime {ort.__version__} takes no plug-ins: onnxruntime-qnn needs a newer one ({EXTRA.command})"
        ) from error
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise BackendMissingError(f"onnxruntime-qnn cannot be loaded: {one_line(error)}") from error


def _devices(ort: Any) -> list[Any]:
    """Return the plug-in's devices, the NPU first where there is one."""
    devices = [device for device in getattr(ort, "get_ep_devices", list)() if device.ep_name == PROVIDER]
    return sorted(devices, key=lambda device: "NPU" not in str(device.device.type))


BACKENDS.add(
    BackendSpec(
        name="qnn",
        runs="contexts for Qualcomm's NPU (gtp-export build-engine --target qnn)",
        suffixes=(".qnn",),
        default_for=(".qnn",),
        extras=(EXTRA,),
        options=QnnOptions,
        open=QnnBackend,
    )
)
