"""onnxruntime-web, which runs graphs in a browser: one version, and what each of its files must be.

The package comes from the user's npm, once for each site, or from a place at hand. Nothing of it is run here, and no
file is taken whose SHA-256 is not the one below.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from gtp_exporters.errors import LimitError, MissingPackageError
from gtp_runtime.messages import one_line

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
MINUTES = 10  # that npm may take
WASM = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
WEBGPU = {
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}


def copy_package(package: Path | None, target: Path, webgpu: bool) -> None:
    """Put the files of onnxruntime-web into a folder.

    Args:
        package: the package at hand: its .tgz, or its folder (as in ``node_modules``); None asks npm for it.
        target: the folder, which exists.
        webgpu: whether the files of WebGPU are needed too.

    Raises:
        MissingPackageError: npm is not installed, or cannot fetch the package.
        LimitError: what was given is not this package, or a file of it is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="gtp-export-") as work:
        source = fetch(Path(work)) if package is None else package
        for name, sha256 in {**WASM, **(WEBGPU if webgpu else {})}.items():
            content = read_member(source, f"dist/{name}")
            if hashlib.sha256(content).hexdigest() != sha256:
                version = _version(source)
                raise LimitError(
                    f"{source}: {name} is not that of {PACKAGE} {VERSION} (sha256 differs; this is version {version}): "
                    f"npm pack {PACKAGE}@{VERSION} makes the file that --ort-web takes"
                )
            (target / name).write_bytes(content)


def fetch(place: Path) -> Path:
    """Let npm download the package into a folder, and return the file. npm runs no script of it.

    Raises:
        MissingPackageError: npm is not installed, or cannot fetch it.
    """
    wanted = f"{PACKAGE}@{VERSION}"
    npm = shutil.which("npm")
    elsewhere = f"where there is a network, npm pack {wanted} makes a file that --ort-web takes"
    if npm is None:
        raise MissingPackageError(f"npm, which fetches {wanted}, is not installed: install Node.js; or {elsewhere}")
    command = [
        npm,
        "pack",
        wanted,
        "--ignore-scripts",
        "--loglevel=error",
        "--fetch-retries=1",
        "--pack-destination",
        str(place),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * MINUTES, cwd=place)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingPackageError(f"npm could not fetch {wanted} ({one_line(error)}): {elsewhere}") from error
    files = sorted(place.glob("*.tgz"))
    if done.returncode or not files:
        reason = one_line(done.stderr.strip() or f"exit code {done.returncode}", 200)
        raise MissingPackageError(f"npm could not fetch {wanted} ({reason}): is there a network? {elsewhere}")
    return files[0]


def read_member(source: Path, name: str) -> bytes:
    """Return a file of a package, from its folder or its .tgz; nothing is unpacked to a place that an archive names.

    Raises:
        LimitError: it is neither, or has no such file.
    """
    try:
        if source.is_dir():
            return (source / name).read_bytes()
        with tarfile.open(source, "r:gz") as archive:
            member: IO[bytes] | None = archive.extractfile(f"package/{name}")
            if member is not None:
                return member.read()
    except (OSError, KeyError, EOFError, tarfile.TarError) as error:
        reason = one_line(getattr(error, "strerror", None) or error, 120)
        raise LimitError(
            f"{source} is not the package {PACKAGE}, its folder or its .tgz: {name} cannot be read there ({reason})"
        ) from error
    raise LimitError(f"{source} is not the package {PACKAGE}: its {name} is no file")


def _version(source: Path) -> str:
    """Return the version that a package states of itself, for people."""
    try:
        return one_line(json.loads(read_member(source, "package.json"))["version"], 40)
    except (LimitError, ValueError, KeyError, TypeError):
        return "unknown"
