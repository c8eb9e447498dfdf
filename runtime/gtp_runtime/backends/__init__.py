"""The backends that run files: a module or folder each, which imports its engine when it opens a file."""

from gtp_runtime.backends import executorch, litert, mnn, onnxruntime, openvino, qnn, tensorrt
from gtp_runtime.backends.spec import BACKENDS, Attempt, Backend, BackendSpec, find_backend, make_options

__all__ = [
    "BACKENDS",
    "Attempt",
    "Backend",
    "BackendSpec",
    "executorch",
    "find_backend",
    "litert",
    "make_options",
    "mnn",
    "onnxruntime",
    "openvino",
    "qnn",
    "tensorrt",
]
