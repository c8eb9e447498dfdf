"""model.json, shown and read."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from targets.base import Target, edits, manifest_seed, refused, write


def read_manifest(content: bytes, folder: Path) -> None:
    from gtp_export.commands.inspect import inspect
    from gtp_runtime import read_manifest as read
    from gtp_runtime.backends.spec import check_runnable

    write(folder, "model.json", content)
    manifest = read(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        inspect(folder)
        inspect(folder, json=True)
    for name in manifest.files:
        with refused():
            check_runnable(folder / name, manifest)
    manifest.preprocessing.pixels(np.zeros((7, 5, 3), np.uint8))


TARGET = Target(
    read_manifest,
    lambda: [json.dumps(manifest_seed()).encode()],
    (b"null", b"-1", b"1e999", b"[", b"{", b'"', b"\\u0000", b"\\ud800", b"9999999999999999999", b"true"),
    edits(manifest_seed),
)
