"""Connects to a Ray cluster."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from gtp_runtime.errors import BackendMissingError, FleetError, InputError, first_line
from gtp_runtime.extras import Extra
from gtp_runtime.fleet.crew import Tell, log_it
from gtp_runtime.fleet.fleet import Fleet
from gtp_runtime.fleet.hands import code_digests, names_digest

EXTRA = Extra("ray", {"ray": "ray"})
SECONDS = 5.0  # to reach the head of the cluster


def connect(address: str, images: str | PathLike[str] | None = None, tell: Tell = log_it) -> Fleet:
    """Return the nodes of a cluster, ready to work.

    Args:
        address: of the cluster's head, "HOST:PORT", or "auto" for the cluster that this machine is a node of.
        images: a folder of images. Nodes work only if they have it at the same path, with images of the same names.
        tell: called now and then with the nodes that are waited for, in words (default: they are logged).

    Raises:
        InputError: an address of another form.
        BackendMissingError: Ray is not installed.
        FleetError: no cluster is there, or it has another Ray or Python.
        ImageError: no images in the folder.
    """
    _check_address(address)
    digest = None if images is None else (str(Path(images).resolve()), names_digest(str(images)))
    ray = _import()
    try:
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError and ValueError, each for many things
        raise FleetError(f"cannot join the cluster at {address}: {first_line(error)}") from error
    module = import_module("gtp_runtime.fleet.cluster")
    return Fleet(module.RayCluster(code_digests(), digest), tell)


def _check_address(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(f"{address!r} is no address of a cluster: give HOST:PORT of its head, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise FleetError(f"no cluster at {address} ({_reason(error)}): ray start --head starts one") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _import() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to Ray's makers
    try:
        return import_module("ray")
    except ImportError as error:
        raise BackendMissingError(f"ray is not installed: {EXTRA.command}") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
