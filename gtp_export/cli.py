"""The command line: ``gtp_export.commands`` lists the commands, and each is imported when it is needed."""

import signal
import sys
import warnings
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gtp_export import console
from gtp_export.commands import COMMANDS
from gtp_export.options import with_options
from gtp_runtime.errors import FAILED, MISSING, GTPError, system_error

EPILOG = (
    "Exit codes: 0 done; 1 failed; 2 usage error; 3 a parity or accuracy gate failed, or a target refuses a node; "
    "4 a requirement is missing (weights, backend, device); 5 a latency budget was missed."
)
ENTRIES = {entry.name: entry for entry in COMMANDS}


def command(name: str) -> Any:
    """Return a command of ``COMMANDS``, with the options that all commands have."""
    entry = ENTRIES[name]
    function = getattr(import_module(f"gtp_export.commands.{entry.module}"), entry.function)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["-h", "--help"]}
    example = f"Example: gtp-export {entry.example}"
    alone.command(name, epilog=example, context_settings=settings)(with_options(console.set_verbosity)(function))
    return get_command(alone)


class Commands(TyperGroup):
    """The commands of the table: the help names them, and the one that runs is imported."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature of a group
        return list(ENTRIES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        entry = ENTRIES.get(cmd_name)
        return entry and TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> "tuple[str | None, Any, list[str]]":
        name, entry, rest = super().resolve_command(ctx, args)
        return name, entry if name is None else command(name), rest


app = typer.Typer(
    name="gtp-export",
    cls=Commands,
    help="Deploy a pretrained Vision Transformer on an edge device: faster with GTP, and with proven parity.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        from gtp_export.extras import missing_extra

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
