"""``gtp-export keygen``, ``sign`` and ``verify``: keys, who vouches for an export, and whether it is as signed."""

import time
from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json
from gtp_runtime.errors import FAILED


def keygen(
    name: Annotated[
        Path, typer.Argument(help="Writes NAME.key, which signs, and NAME.pub, which verifies.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Make an Ed25519 key pair. Keep NAME.key secret; give NAME.pub to devices."""
    from gtp_runtime.deploy.signing import write_key_pair

    private, public, key = write_key_pair(name)
    if json:
        console.emit({"private": str(private), "public": str(public), "key": key.id})
        return
    console.out.print(f"wrote {private} (keep it secret: it has no password) and {public} (key {key.id})")
    console.next_command("sign", "DIR", "--key", private)


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
    from gtp_runtime.deploy.signing import read_private_key
    from gtp_runtime.deploy.signing import sign as run
    from gtp_runtime.manifest import SIGNATURE_NAME

    private = read_private_key(key)
    try:
        signature = run(directory, private, int(time.time()) if version is None else version)
    except OSError as error:
        console.err.print(f"error: cannot write {directory / SIGNATURE_NAME}: {error.strerror or error}", style="red")
        raise typer.Exit(FAILED) from error
    if json:
        console.emit({"directory": str(directory), "key": signature.key, "version": signature.version})
        return
    console.out.print(f"signed {directory} with the key {signature.key} as version {signature.version}")
    console.next_command("verify", directory, "--trusted-key", key.with_suffix(".pub"))


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
    export = run(directory, trust)
    signature = export.signature
    if json:
        files = sorted(export.manifest.files)
        console.emit({"directory": str(directory), "key": signature.key, "version": signature.version, "files": files})
        return
    console.out.print(
        f"{directory} is as the key {signature.key} signed it: version {signature.version}, "
        f"{len(export.manifest.files)} files and the manifest"
    )
    console.next_command("validate", directory, "--trusted-key", trusted_key[0])
