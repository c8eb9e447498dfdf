"""How a search looks to people."""

from typing import TYPE_CHECKING

from gtp_export import console
from gtp_runtime.text import number

if TYPE_CHECKING:
    from gtp_exporters.tuning.outcome import Outcome
    from gtp_exporters.tuning.results import Loss

NAMES = {"default": "the recipe's default", "better": "beats the default"}


def front_table(outcome: "Outcome") -> None:
    """Show the front, the fastest first, and the recipe's default."""
    from gtp_exporters.tuning.outcome import called
    from gtp_exporters.tuning.page import described, marks

    shown = [*outcome.front, *([] if outcome.default in outcome.front else [outcome.default])]
    rows = []
    for result in shown:
        assert result.timing is not None and result.loss is not None
        name = ", ".join([called(result), *marks(outcome, result)])
        times = (number(result.timing.ratio, 3), number(result.timing.p50_ms))
        rows.append((name, *times, *_loss(result.loss), number(result.macs_ratio, 3), described(result)))
    columns = ("", "latency", "p50 ms", "divergence", "top-1 drop", "MACs", "settings")
    title = f"front of {outcome.trials} trials on {outcome.search_images} images of {outcome.origin}"
    console.table(title, columns, rows)


def validation_table(outcome: "Outcome") -> None:
    """Show what was measured on the images that the search never saw."""
    rows = [
        (NAMES.get(name, name), number(found.ratio, 3), number(found.p50_ms), *_loss(found.loss))
        for name, found in outcome.validated.items()
    ]
    images = next(iter(outcome.validated.values())).loss.images
    title = f"the exported graphs on {images} images that the search never saw, timed in turn"
    console.table(title, ("", "latency", "p50 ms", "divergence", "top-1 drop"), rows)


def _loss(loss: "Loss") -> tuple[str, str]:
    drop = "-" if loss.drop is None else f"{loss.drop:.2f} ± {number(loss.drop_se)}"
    return f"{loss.divergence:.2g} ± {loss.divergence_se:.1g}", drop


def verdict(outcome: "Outcome") -> str:
    """Return whether something beats the recipe's default on both axes, in a line."""
    from gtp_exporters.tuning.outcome import called

    if outcome.better is None:
        return "nothing that was timed loses less than the recipe's default and is faster"
    held = "also" if outcome.better_holds else "but not"
    return (
        f"{called(outcome.better)} loses less than the recipe's default and is faster on the images of the search, "
        f"{held} on those that were held out"
    )
