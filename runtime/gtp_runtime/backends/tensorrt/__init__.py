"""TensorRT and TensorRT-RTX: which one is installed, CUDA by either Python library, and the backend itself."""

from gtp_runtime.backends.tensorrt.backend import TensorRTBackend, TensorRTOptions

__all__ = ["TensorRTBackend", "TensorRTOptions"]
