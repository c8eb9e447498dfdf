"""The backends that run files: one module each, which registers itself and imports its engine when it opens a file."""

from gtp_runtime.backends.registry import Attempt, Backend, BackendSpec, all_backends, find_backend, register

__all__ = ["Attempt", "Backend", "BackendSpec", "all_backends", "find_backend", "register"]
