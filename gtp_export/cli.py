"""The command line: one file a command in ``gtp_export.commands``."""

import signal
import sys
import warnings
from typing import Annotated

import typer

from gtp_export import console, exit_codes
from gtp_export.commands.bench import bench
from gtp_export.commands.build_engine import build_engine
from gtp_export.commands.calibrate import calibrate
from gtp_export.commands.doctor import doctor
from gtp_export.commands.export import export
from gtp_export.commands.inspect import inspect
from gtp_export.commands.methods import methods
from gtp_export.commands.models import models
from gtp_export.commands.predict import predict
from gtp_export.commands.validate import validate

EPILOG = (
    "Exit codes: 0 done; 1 failed; 2 usage; 3 a parity or accuracy gate failed; "
    "4 something needed is missing (weights, backend); 5 a latency budget was missed."
)
app = typer.Typer(
    name="gtp-export",
    help="Put a pretrained Vision Transformer on an edge device: faster with GTP, and proven to answer the same.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (models, methods, export, build_engine, validate, bench, predict, inspect, calibrate, doctor):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gtp-export {version('gtp-export')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the command line; an error that we know is one line on stderr and an exit code."""
    warnings.showwarning = console.show_warning
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what is half-written goes
    try:
        app()
    except exit_codes.KNOWN as error:
        _fail(error, str(error), exit_codes.code_of(error))
    except ModuleNotFoundError as error:
        _fail(error, exit_codes.missing_extra(error), exit_codes.MISSING)


def _fail(error: Exception, text: str, code: int) -> None:
    if console.Verbosity.verbose or not text:
        raise error
    console.err.print(f"error: {text}", style="red", markup=False)
    sys.exit(code)
