"""Whether timm's hub can be reached, found out quickly: an offline look-up takes most of a minute to fail."""

import os
import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

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
    host, port = _first_hop(_hub_endpoint() if config.hf_hub_id else config.url)
    reached = threading.Event()

    def connect() -> None:
        with suppress(OSError, UnicodeError), socket.create_connection((host, port), timeout=TIMEOUT):
            reached.set()

    attempt = threading.Thread(target=connect, daemon=True)  # a name server that hangs knows no time limit
    attempt.start()
    attempt.join(TIMEOUT)
    return reached.is_set()


def _first_hop(url: str) -> tuple[str, int]:
    """Return host and port of the proxy that the environment names for a URL, else of the URL."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
