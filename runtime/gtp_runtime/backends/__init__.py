"""What runs a file: one module a backend, which registers itself; its engine is imported only when a file is opened."""

from gtp_runtime.backends.registry import Backend, BackendSpec, all_backends, find_backend, register

__all__ = ["Backend", "BackendSpec", "all_backends", "find_backend", "register"]
