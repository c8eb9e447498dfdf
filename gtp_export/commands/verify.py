"""``gtp-export verify``: is an export as its signer left it?"""

from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json


def verify(
    directory: Annotated[Path, typer.Argument(help="A signed artifact directory.", show_default=False)],
    trusted_key: Annotated[
        list[Path],
        typer.Option(help="Trusted public key (.pub); repeatable, one of them must have signed.", show_default=False),
    ],
    min_version: Annotated[int | None, typer.Option(help="Lowest accepted version.", min=1, show_default=False)] = None,
    remember: Annotated[
        Path | None,
        typer.Option(help="File that stores the highest accepted version; older ones are refused.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Check that a trusted key signed an export, and that no file was changed, added or removed since."""
    from gtp_runtime.deploy.signing import Trust
    from gtp_runtime.deploy.signing import verify as run

    trust = Trust.of(trusted_key, min_version, remember)
    assert trust is not None
    found = run(directory, trust)
    signature = found.signature
    if json:
        files = sorted(found.manifest.files)
        console.emit({"directory": str(directory), "key": signature.key, "version": signature.version, "files": files})
        return
    console.out.print(
        f"{directory} is as the key {signature.key} signed it: version {signature.version}, "
        f"{len(found.manifest.files)} files and the manifest"
    )
    console.out.print(f"next: gtp-export validate {directory} --trusted-key {trusted_key[0]}")
