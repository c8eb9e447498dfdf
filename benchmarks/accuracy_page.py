"""The page of accuracy.py: tables and a plot of what it found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresholds import Closeness

METHODS = ("gtp", "prune", "mean", "tome", "drop")
SELECTIONS = ("MixedAttnMax", "CLSAttnMax", "CLSAttnMean", "IMGAttnMax", "DiagAttnMax")
SCHEDULES = ("even", "early", "late", "every:3", "aligned:8")


@dataclass(frozen=True)
class Row:
    """One setting at the MACs that GTP has with ``amount`` tokens a layer.

    Attributes:
        group, setting: what it is.
        amount: GTP's ``num_prop`` of these MACs; 0 is the dense model.
        num_prop: the setting's own, for each layer.
        macs: of the backbone, over the dense model's.
        top1, agreement: in percent; agreement with the dense model's answers.
    """

    group: str
    setting: str
    amount: int
    num_prop: list[int]
    macs: float
    top1: float
    agreement: float


HEAD = """# {title}: accuracy at equal MACs

{images} images, eager PyTorch, nothing tuned; made by `benchmarks/accuracy.py`. One image is worth {one:.2f} points,
and a top-1 like the dense model's {dense:.2f} % has a standard error of {error:.2f} points on so many images
(differences between settings, which all see the same images, somewhat less).

![plot]({plot}.png)

Cells are top-1 in % (answers in agreement with the dense model in %). *num_prop* and *MACs* (share of the dense
model's) are GTP's; the others spend the same, except where a cell gives MACs of its own.

"""
AFTER_METHODS = """
Mean takes one token more in each layer, whose place the mean takes. ToMe merges at most half of a layer's tokens, so in
its last layers fewer where `num_prop` asks for more, as its authors' code does.
"""
AFTER_SCHEDULES = """
A dash: no schedule of this kind comes near these MACs.
"""
AFTER_SELECTIONS = """
`CLSAttn` needs one row of the attention map, so runtimes that fuse attention keep doing so; the others need all of it.
A dash: not measured.
"""
GROUPS = (
    ("methods", METHODS, AFTER_METHODS),
    ("schedules", SCHEDULES, AFTER_SCHEDULES),
    ("selections", SELECTIONS, AFTER_SELECTIONS),
)
THRESHOLDS = """
## Thresholds

`num_prop` {amount}. *Entries kept* of the attention map: mean and standard deviation over images, layers and heads.
Against the exact threshold of the same sparsity: images with the same tokens kept in all layers, tokens kept in common
after the last layer ({chance:.0f} % by chance), and the largest difference of an image's logits as a share of
max|logit|, mean and largest over images. *None* is sparsity 1: what happens without a threshold.

"""


def write(found: dict[str, Any], output: Path) -> None:
    rows = [
        Row(**row) for row in (*found.get("methods", []), *found.get("schedules", []), *found.get("selections", []))
    ]
    dense = next((row for row in rows if row.setting == "dense"), None)
    top1 = dense.top1 if dense else 0.0
    images = found["images"]
    numbers = {"one": 100 / images, "error": (top1 * (100 - top1) / images) ** 0.5, "dense": top1}
    parts = [HEAD.format(title=found["title"], images=images, plot=output.name, **numbers)]
    for group, settings, after in GROUPS:
        if not found.get(group):
            continue
        parts += [f"## {group.capitalize()}\n\n", table(rows, group, settings), after, "\n"]
    if found.get("thresholds"):
        close = [Closeness(**row) for row in found["thresholds"]]
        parts.append(THRESHOLDS.format(amount=close[0].num_prop, chance=close[0].chance))
        parts += [line + "\n" for line in Closeness.table(close)]
    output.with_suffix(".md").write_text("".join(parts).replace("\n\n\n", "\n\n"))
    plot(rows, found["title"], output.with_suffix(".png"))


def table(rows: list[Row], group: str, settings: tuple[str, ...]) -> str:
    """Return a line for each amount, a column for each setting."""
    lines = ["| num_prop | MACs | " + " | ".join(settings) + " |", "| --- " * (len(settings) + 2) + "|"]
    if group == "methods":
        lines += [f"| dense | 1.000 | {row.top1:.2f} |" + " |" * (len(settings) - 1) for row in rows if not row.amount]
    for amount in sorted({row.amount for row in rows if row.group == group and row.amount}):
        of = {row.setting: row for row in rows if (row.group, row.amount) == (group, amount)}
        macs = next(iter(of.values())).macs
        cells = [cell(of[name], macs) if name in of else "-" for name in settings]
        lines.append(f"| {amount} | {macs:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(row: Row, macs: float) -> str:
    other = f", {row.macs:.3f}" if abs(row.macs - macs) >= 2e-3 else ""
    return f"{row.top1:.2f} ({row.agreement:.1f}{other})"


def plot(rows: list[Row], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for axes, group, settings in zip(both, ("methods", "schedules"), (METHODS, SCHEDULES), strict=True):
        for row in rows[:1]:
            axes.axhline(row.top1, color="0.6", linestyle="--", label="dense")
        for setting in settings:
            points = sorted((row.macs, row.top1) for row in rows if (row.group, row.setting) == (group, setting))
            axes.plot([macs for macs, _ in points], [top1 for _, top1 in points], marker="o", label=setting)
        axes.set(xlabel="MACs, share of the dense model's", ylabel="top-1, %", title=group)
        axes.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
