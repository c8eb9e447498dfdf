"""``gtp-export sign``: vouch for an export."""

import time
from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json
from gtp_runtime.errors import FAILED


def sign(
    directory: Annotated[Path, typer.Argument(help="An artifact directory.", show_default=False)],
    key: Annotated[Path, typer.Option(help="Private key (.key) that gtp-export keygen wrote.", show_default=False)],
    version: Annotated[
        int | None,
        typer.Option(
            help="A number that you raise with each export, so that devices can refuse older ones "
            "(default: the time, in seconds since 1970).",
            min=1,
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign an export: its manifest, which has the sha256 of every file, and a version. Writes model.sig."""
    from gtp_runtime.deploy.keys import read_private_key
    from gtp_runtime.deploy.signing import sign as run
    from gtp_runtime.manifest import SIGNATURE_NAME

    private = read_private_key(key)
    try:
        made = run(directory, private, int(time.time()) if version is None else version)
    except OSError as error:
        console.err.print(f"error: cannot write {directory / SIGNATURE_NAME}: {error.strerror or error}", style="red")
        raise typer.Exit(FAILED) from error
    if json:
        console.emit({"directory": str(directory), "key": made.key, "version": made.version})
        return
    console.out.print(f"signed {directory} with the key {made.key} as version {made.version}")
    console.out.print(f"next: gtp-export verify {directory} --trusted-key {key.with_suffix('.pub')}")
