"""``gtp-export doctor``: what this machine can do, and what to install for the rest."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from gtp_export import console
from gtp_export.options import Json
from gtp_exporters.tensorrt.device import describe_device, jetpack
from gtp_runtime.cuda import find_cuda
from gtp_runtime.errors import BackendMissingError, GTPRuntimeError
from gtp_runtime.tensorrt_flavor import find_flavor

# what an extra makes possible, and the packages that it takes
EXPORT = "torch torchvision timm onnx onnxscript onnxsim onnxruntime safetensors pyyaml jaxtyping".split()
DEVICE = ["openvino", "tensorrt", "tensorrt_rtx", "cuda-python", "pycuda"]
ABILITIES = {
    "export": ("export models", EXPORT),
    "onnxruntime": ("run ONNX files", ["onnxruntime"]),
    "openvino": ("run ONNX files with OpenVINO", ["openvino"]),
}


def doctor(json: Json = False) -> None:
    """Show what is installed here, what it can do, and the pip command for what is missing."""
    packages = sorted({*EXPORT, *DEVICE, "numpy", "pillow", "gtp-export"})
    found = {name: _version(name) for name in packages}
    missing = {extra: [name for name in names if found[name] is None] for extra, (_, names) in ABILITIES.items()}
    document = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": found,
        "providers": _providers(),
        "tensorrt": _tensorrt(),
        "cuda": _cuda(),
        "device": {**describe_device(), "jetpack": jetpack()},
        "missing": missing,
    }
    if json:
        console.emit(document)
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    machine = f"{document['machine']}, {document['cpus']} CPUs"
    console.out.print(f"Python {document['python']} at {sys.executable}, {machine}", markup=False)
    console.table("", ("package", "version"), [(name, found or "-") for name, found in document["packages"].items()])
    console.out.print(f"ONNX Runtime's providers: {', '.join(document['providers']) or '-'}")
    console.out.print(f"TensorRT: {document['tensorrt']}", markup=False)
    device = document["device"]
    gpu = f"{device['gpu']}, compute capability {device['compute_capability']}" if device["gpu"] else document["cuda"]
    console.out.print(f"GPU: {gpu}" + (f", {device['jetpack']}" if device["jetpack"] else ""), markup=False)
    for extra, lacking in document["missing"].items():
        what = ABILITIES[extra][0]
        if lacking:
            text = f"cannot {what}: {', '.join(lacking)} missing; pip install 'gtp-export[{extra}]'"
            console.out.print(text, style="yellow", markup=False)
        else:
            console.out.print(f"can {what}")
    console.out.print("next: gtp-export validate PATH" if document["missing"]["export"] else "next: gtp-export models")


def _cuda() -> str:
    try:
        return find_cuda().name
    except GTPRuntimeError as error:
        return f"none ({error})"


def _tensorrt() -> str:
    try:
        flavor = find_flavor()
    except BackendMissingError as error:
        return str(error)
    return f"{flavor.name} {flavor.version}"


def _version(name: str) -> "str | None":
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    if find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())
