"""The command line, one argument a line; what would take long is stopped where the work begins."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from targets.base import Target

STOPPED = "stopped before any work"
WORK = (
    "gtp_exporters.artifacts.to_onnx",
    "gtp_models.weights.build_model",
    "gtp_models.weights.outline",
    "gtp_exporters.subject.build_model",
)
SEEDS = [b"predict\nmodel.onnx\nx.png", b"inspect\n.", b"export\ndigits\n--num-prop\n8,8", b"doctor\n--json", b"models"]
VALUES = [
    *("", "0", "-1", "1e400", "nan", "inf", "8", "8,8", "x", "../x", "digits", "tiny.yaml", "model.onnx", ".", "/"),
    *("[red]", "\x1b[2J", "9" * 50, "fp16", "auto", "7.png", "timm:x", "--", "-q", "\ufffd", ".."),
]


def run_command(content: bytes, folder: Path) -> None:
    from gtp_export import cli, console

    arguments = content.decode("utf-8", "replace").replace("\0", "").split("\n")[:12]
    here, code = Path.cwd(), None
    with _stopped(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        os.chdir(folder)
        sys.argv = ["gtp-export", *arguments]
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
        finally:
            console.Verbosity.quiet = console.Verbosity.verbose = False
            os.chdir(here)
    assert code in (None, 0, 1, 2, 3, 4, 5), code
    assert "Traceback" not in err.getvalue()


@contextlib.contextmanager
def _stopped() -> Iterator[None]:
    from gtp_exporters.errors import LimitError

    def stop(*arguments: object, **options: object) -> None:
        raise LimitError(STOPPED)

    with contextlib.ExitStack() as stack:
        for name in WORK:
            stack.enter_context(patch(name, stop))
        yield


@st.composite
def command_lines(draw: Any) -> bytes:
    """A command with options that exist, and values that may not fit them."""
    from typer.main import get_command

    from gtp_export import cli

    commands: Any = get_command(cli.app)
    name = draw(st.sampled_from(sorted(commands.commands)))
    options = [form for parameter in commands.commands[name].params for form in parameter.opts if form.startswith("-")]
    # a verbose run raises what is wrong, as it should
    words = st.sampled_from(
        [option for option in options if option not in ("-v", "--verbose")] or ["-h"]
    ) | st.sampled_from(VALUES)
    return "\n".join([name, *draw(st.lists(words, max_size=7))]).encode()


TARGET = Target(
    run_command, lambda: SEEDS, (b"\n--json", b"\n-q", b"\n-o\n", b"\n--data\n.", b"\n--help"), command_lines()
)
