"""The page of accuracy.py: tables and a plot of what it found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scores import Scores, with_error
from thresholds import Closeness


@dataclass(frozen=True, kw_only=True)
class Row(Scores):
    """One setting at the MACs that GTP has with ``amount`` tokens a layer.

    Attributes:
        group, setting: what it is.
        amount: GTP's ``num_prop`` of these MACs; 0 is the dense model.
        num_prop: the setting's own, for each layer.
        macs: of the backbone, over the dense model's.
    """

    group: str
    setting: str
    amount: int
    num_prop: list[int]
    macs: float


HEAD = """# {title}: accuracy at equal MACs

{images} images, eager PyTorch, without tuning; made by `benchmarks/accuracy.py`. Figures are means over the images ±
their standard errors.

![plot]({plot}.png)

*num_prop* is the number of tokens that GTP removes per layer. All settings of one *num_prop* have nearly the same MACs.
*MACs* is relative to the dense model. *Divergence* is the Kullback-Leibler divergence of the dense to the reduced class
probabilities in nats. *Agreement* is the share of images with the dense model's prediction. *Change* is top-1 minus the
dense model's. It is paired over the images, so its standard error is smaller than that of top-1.

"""
AFTER_METHODS = """
*gtp* is the paper's form, *gtp-cls* the same with `--selection CLSAttnMax`, *prune* with `--propagation None`. *mean*
(`--propagation Mean`) replaces the removed tokens with their mean, so it removes one more token in each layer.
*measured* is `--preset measured`, which removes tokens in a few layers, and *measured-each* the same in every layer.
ToMe and PiToMe merge at most half of a layer's tokens, so they remove fewer in the last layers if `num_prop` is larger.
PiToMe (arXiv 2405.16148) and ATC (arXiv 2409.11923, average linkage, on keys as in the paper and on the tokens) are our
implementations of the papers, for accuracy only.
"""
AFTER_SCHEDULES = """
A schedule is missing where none of its settings is close to these MACs.
"""
AFTER_SELECTIONS = """
`CLSAttn` needs one row of the attention map, so runtimes can still fuse attention. The others need the whole map.
"""
TABLES = {"methods": AFTER_METHODS, "schedules": AFTER_SCHEDULES, "selections": AFTER_SELECTIONS}
GROUPS = (*TABLES, "thresholds")
COLUMNS = ("num_prop", "MACs", "setting", "divergence", "agreement %", "top-1 %", "change")
THRESHOLDS = """
## Thresholds

`num_prop` {amount}. *Entries kept*: entries of the attention map, mean and standard deviation over images, layers and
heads. The next columns compare with the exact threshold of the same sparsity: images that keep the same tokens in all
layers, tokens that both keep after the last layer ({chance:.0f} % by chance), and the largest difference of an image's
logits as a share of max|logit|, mean and largest over images. *None* is sparsity 1, without a threshold.

"""


def write(found: dict[str, Any], output: Path) -> None:
    rows = {group: [Row(**row) for row in found[group]] for group in TABLES if found.get(group)}
    parts = [HEAD.format(title=found["title"], images=found["images"], plot=output.name)]
    for group, of_group in rows.items():
        parts += [f"## {group.capitalize()}\n\n", *(line + "\n" for line in table(of_group)), TABLES[group], "\n"]
    if found.get("thresholds"):
        close = [Closeness(**row) for row in found["thresholds"]]
        parts.append(THRESHOLDS.format(amount=close[0].num_prop, chance=close[0].chance))
        parts += [line + "\n" for line in Closeness.table(close)]
    output.with_suffix(".md").write_text("".join(parts).replace("\n\n\n", "\n\n").rstrip("\n") + "\n", encoding="utf-8")
    plot(rows, found["title"], output.with_suffix(".png"))


def table(rows: list[Row]) -> list[str]:
    """Return a line for each row, the smaller amounts first."""
    cells: list[tuple[str, ...]] = [COLUMNS, ("---",) * len(COLUMNS)]
    cells += [line(row) for row in sorted(rows, key=lambda row: row.amount)]
    return ["| " + " | ".join(of_row) + " |" for of_row in cells]


def line(row: Row) -> tuple[str, ...]:
    figures = (
        with_error(row.divergence, row.divergence_error, 5),
        with_error(row.agreement, row.agreement_error, 2),
        with_error(row.top1, row.top1_error, 2),
        with_error(row.change, row.change_error, 2),
    )
    return (str(row.amount or "-"), f"{row.macs:.3f}", row.setting, *figures)


def plot(rows: dict[str, list[Row]], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, max(1, len(rows)), figsize=(5.5 * max(1, len(rows)), 8), squeeze=False)
    for column, (group, of_group) in enumerate(rows.items()):
        for setting in dict.fromkeys(row.setting for row in of_group if row.amount):
            points = sorted((row.macs, row.divergence, row.top1) for row in of_group if row.setting == setting)
            macs, *measured = zip(*points, strict=True)
            for axes, values in zip(places[:, column], measured, strict=True):
                axes.plot(macs, values, marker="o", label=setting)
        places[0, column].set(ylabel="divergence, nats", yscale="log", title=group)
        places[1, column].set(ylabel="top-1, %", xlabel="MACs, share of the dense model's")
        places[1, column].legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
