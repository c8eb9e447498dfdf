"""``gtp-export keygen``: a key pair that signs and verifies exports."""

from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json


def keygen(
    name: Annotated[
        Path, typer.Argument(help="Writes NAME.key, which signs, and NAME.pub, which verifies.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Make an Ed25519 key pair. Keep NAME.key secret; give NAME.pub to devices."""
    from gtp_runtime.deploy.keys import write_key_pair

    private, public, key = write_key_pair(name)
    if json:
        console.emit({"private": str(private), "public": str(public), "key": key.id})
        return
    console.out.print(f"wrote {private} (keep it secret: it has no password) and {public} (key {key.id})")
    console.out.print(f"next: gtp-export sign DIR --key {private}")
