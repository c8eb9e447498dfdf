"""The hubs that weights come from: what is on this machine, whether a host can be reached, and whole repositories.

Checks are fast, because an offline download takes most of a minute to fail.
"""

import os
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from gtp_models.errors import HubUnreachableError, UnknownModelError, WeightsUnavailableError
from gtp_runtime.messages import one_line

TIMEOUT = 5.0  # seconds
WEIGHTS = (".safetensors", ".bin")  # of a repository; the first that it has


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def is_cached(config: Any) -> bool:
    """Whether the weights are on this machine, so that no connection is needed.

    It looks where timm (1.0.28 to 1.0.31) does, in timm's order: a file that the configuration names; the Hugging Face
    hub's cache (``HF_HUB_CACHE``, ``HF_HOME``); torch.hub's for weights with a URL alone, or first of all where
    ``TIMM_USE_OLD_CACHE`` is set.

    Args:
        config: timm's ``PretrainedCfg``.
    """
    if config.source != "hf-hub":
        if config.state_dict or config.file:
            return True
        if _prefers_torch_hub() and _is_in_torch_hub(config.url, check_hash=True):
            return True
    if config.hf_hub_id:
        return _is_in_hub(config)
    return _is_in_torch_hub(config.url, check_hash=False)


def _prefers_torch_hub() -> bool:
    return int(os.environ.get("TIMM_USE_OLD_CACHE", "0")) > 0


def _is_in_hub(config: Any) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from timm.models._hub import HF_WEIGHTS_NAME, _get_safe_alternatives

    repository, _, revision = config.hf_hub_id.partition("@")
    name = config.hf_hub_filename or HF_WEIGHTS_NAME
    twins = () if config.hf_hub_filename and config.custom_load == "hf" else _get_safe_alternatives(name)
    paths = (try_to_load_from_cache(repository, file, revision=revision or None) for file in (*twins, name))
    return any(isinstance(path, str) for path in paths)


def _is_in_torch_hub(url: str | tuple[str, str] | None, check_hash: bool) -> bool:
    """``url`` may be a pair: the URL, and the name under which its file is kept."""
    if not url:
        return False
    import torch
    from timm.models._hub import check_cached_file

    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    name = PurePosixPath(urlsplit(url).path).name if isinstance(url, str) else url[1]
    exists = os.path.exists(os.path.join(folder, name))
    return exists and (not check_hash or check_cached_file(url, cache_dir=folder))


def is_reachable(config: Any) -> bool:
    """Whether a connection to the weights' host (or to the proxy that leads there) opens within ``TIMEOUT``."""
    url = config.url if not config.hf_hub_id else _hub_endpoint()
    return _connects(url if isinstance(url, str) else url[0])


def _connects(url: str) -> bool:
    host, port = _first_hop(url)
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


def fetch_repository(name: str) -> Path:
    """Return the directory of a repository of Hugging Face's hub: from its cache, else downloaded into it.

    Args:
        name: USER/NAME, with @REVISION where it matters.

    Raises:
        UnknownModelError: no such name.
        HubUnreachableError: it is not in the cache, and the hub cannot be reached.
        WeightsUnavailableError: the hub has no such repository, or does not give it.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    fetch = partial(huggingface_hub.snapshot_download, repository, revision=revision or None)
    try:
        with suppress(LocalEntryNotFoundError):
            directory = Path(fetch(local_files_only=True))
            if (directory / "config.json").exists() and any(
                path.name.endswith(WEIGHTS) for path in directory.iterdir()
            ):
                return directory
        if not _connects(_hub_endpoint()):
            raise HubUnreachableError(
                f"{repository} is not in the cache of {_hub_endpoint()}, which cannot be reached: connect, or give a "
                "directory"
            )
        names = huggingface_hub.list_repo_files(repository, revision=revision or None)
        suffix = next((suffix for suffix in WEIGHTS if any(name.endswith(suffix) for name in names)), None)
        if suffix is None:
            raise WeightsUnavailableError(f"{repository} has no weights ({', '.join(WEIGHTS)}): name another")
        return Path(fetch(allow_patterns=["*.json", f"*{suffix}"], ignore_patterns=["*/*"]))
    except HFValidationError as error:
        raise UnknownModelError(f"{name!r} is no repository: give hf:USER/NAME") from error
    except OSError as error:  # of HTTP as well
        raise WeightsUnavailableError(f"cannot fetch {repository}: {one_line(error)}") from error
