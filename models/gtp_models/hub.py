"""Whether timm's hub can be reached, found out quickly: an offline look-up takes most of a minute to fail."""

import os
import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 5.0  # seconds


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def is_cached(config: Any) -> bool:
    """Whether the hub's file is on this machine already, so that no connection is needed."""
    from huggingface_hub import try_to_load_from_cache

    if not config.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names)


def is_reachable(config: Any) -> bool:
    """Whether a connection to the weights' host (or to the proxy that leads there) opens within ``TIMEOUT``."""
    url = _hub_endpoint() if config.hf_hub_id else config.url
    parts = urlsplit(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or url)
    reached = threading.Event()

    def connect() -> None:
        with (
            suppress(OSError),
            socket.create_connection((parts.hostname or "", parts.port or 443), timeout=TIMEOUT),
        ):
            reached.set()

    attempt = threading.Thread(target=connect, daemon=True)  # a name server that hangs knows no time limit
    attempt.start()
    attempt.join(TIMEOUT)
    return reached.is_set()
