"""The command line: one file a command in ``gtp_export.commands``.

To add a command ``NAME``, write ``gtp_export/commands/NAME.py`` with a function ``NAME``. Its parameters are the
command's, with typer's annotations; its docstring is the help. Nothing else names it. Import what is heavy inside the
function, because ``--help`` loads every command.
"""

import importlib
import pkgutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Annotated

import typer

from gtp_export import commands, console
from gtp_export.extras import missing_extra
from gtp_export.options import takes_log_json
from gtp_runtime.errors import FAILED, MISSING, GTPError, system_error

EPILOG = (
    "Exit codes: 0 done; 1 failed; 2 usage error; 3 a parity or accuracy gate failed; "
    "4 a requirement is missing (weights, backend, device); 5 a latency budget was missed."
)
app = typer.Typer(
    name="gtp-export",
    help="Deploy a pretrained Vision Transformer on an edge device: faster with GTP, and with proven parity.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# in this order in the help
FIRST = ("models", "methods", "export", "quantize", "build_engine", "validate", "bench", "predict")


def _commands() -> Iterator[Callable[..., None]]:
    """Every command of the package: those that people need first, then the rest in alphabetical order."""
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    for name in sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        yield getattr(importlib.import_module(f"{commands.__name__}.{name}"), name)


for _command in _commands():
    app.command()(takes_log_json(_command))


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
    """Run the command line; a known error becomes one line on stderr and an exit code."""
    warnings.showwarning = console.show_warning
    for name in ("SIGTERM", "SIGHUP"):
        _end_on(name)
    try:
        app()
    except GTPError as error:
        _fail(error, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        _fail(error, missing_extra(error), MISSING)
    except OSError as error:
        _fail(error, system_error(error), FAILED)


def _end_on(name: str) -> None:
    """Let a signal end the program by an exception, which removes partial files. An ignored signal (nohup) stays so."""
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    signal.signal(number, signal.SIG_IGN)  # once: a second one would interrupt the clean-up
    sys.exit(128 + number)


def _fail(error: Exception, text: str, code: int) -> None:
    if not text:
        raise error
    console.show_error(error, text)
    sys.exit(code)
