"""``gtp-export install``: update a deployed directory, and go back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gtp_export import console
from gtp_export.options import Json, option
from gtp_export.running import RunOptions, takes_run_options
from gtp_export.values import milliseconds
from gtp_export.values import seconds as read_seconds


@takes_run_options()
def install(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="DIR, an artifact directory, and TARGET, which applications load; with --rollback TARGET alone.",
            show_default=False,
            metavar="[DIR] TARGET",
        ),
    ],
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Install the previous export again, after the same checks.")
    ] = False,
    budget_ms: Annotated[
        float | None,
        option(
            "Latency budget (p50): 20 or 20ms; if it is missed, TARGET stays as it is (exit code 5).",
            "--budget-ms",
            "--latency-budget",
            parser=milliseconds,
            metavar="TIME",
        ),
    ] = None,
    seconds: Annotated[
        float,
        option("Timing duration, after a warm-up: 1, 500ms, 1m (default: 1s).", parser=read_seconds, metavar="TIME"),
    ] = 1.0,
    *,
    running: RunOptions,
    json: Json = False,
) -> None:
    """Install an export in place of another atomically, after it was proven on this device."""
    import gtp_runtime

    if len(paths) != 2 - rollback:
        raise typer.BadParameter("give DIR and TARGET, or --rollback and TARGET")
    demands: dict[str, Any] = {"budget_ms": budget_ms, "seconds": seconds, **running.arguments}
    with console.progress("installing") as update:
        act = gtp_runtime.rollback if rollback else gtp_runtime.install
        installed = act(*paths, progress=update, **demands)
    if json:
        console.emit(installed.to_dict())
        return
    proof, target = installed.proof, installed.target
    console.out.print(
        f"{target} is {installed.directory.name} now: {proof.file} with {proof.backend['name']}, parity ok on "
        f"{proof.parity.images} images, p50 {proof.latency.p50_ms:.2f} ms"
    )
    if installed.previous is not None:
        console.out.print(f"kept {installed.previous.name}: gtp-export install --rollback {target} goes back")
    console.next_command("predict", target, "IMAGE")
