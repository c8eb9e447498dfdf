"""The page of results.py: what each method keeps at equal measured latency."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

BUDGETS = (0.9, 0.75, 0.6, 0.5)  # of the dense model's latency
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO fp32", "openvino-bf16": "OpenVINO bf16"}
HEAD = """# Accuracy against measured latency

How much do the outputs change when a model gets faster? *Latency* is the p50 of the exported graph relative to the
dense baseline: interleaved runs in one process, one thread, batch 1. *Divergence* is the Kullback-Leibler divergence of
the dense model's class probabilities to those of the reduced model, in nats: the mean over all test images, in eager
PyTorch. Lower is closer to the dense model. No model is retrained, and settings are the same for all models.

*measured* is `--preset measured`, which removes tokens in two layers, and *measured-3* does so in three. *tome* is
token merging as published, in every layer, and *tome-2* is token merging in the layers of *measured*. *paper* is
`--preset paper`, *prune* is the paper's selection without propagation, and *drop* slices off the last tokens, all in
every layer. Methods are measured at the same MACs budgets, if they can meet them. Plots and tables show each method at
its measured latency. The tables interpolate between two measured points: the logarithm of the divergence, and top-1,
linear in latency. A dash means that a method has no point on one side of this latency. In models as small as these, a
method that removes tokens in every layer may never become that fast, or not faster than the dense model at all. The
tables are for shares of 0.9, 0.75, 0.6 and 0.5, and leave out those that no method reaches.

"""
FOOT = """
To compare machines, use ratios, not milliseconds. Made by `benchmarks/results.py`; all points are in
[results.json](results.json). For CIFAR-10, with weights and images that are not part of the project:

```
python benchmarks/results.py benchmarks/cifar10.yaml --weights FILE --data DIR \\
    --keep 0.85,0.75,0.65,0.55,0.47,0.4 --seconds 6
python benchmarks/results.py benchmarks/cifar10.yaml --weights FILE --data DIR \\
    --methods measured,measured-3 --keep 0.33 --seconds 6
python benchmarks/results.py digits --keep 0.85,0.7,0.55 --seconds 4
python benchmarks/results.py benchmarks/models/digits_gap.yaml --keep 0.85,0.7 --seconds 4
```

## Limits of these results

- The CIFAR-10 model is small (64 patches, width 128) and was trained to 67 % top-1 only. We have not measured ImageNet.
  On ImageNet, the paper reports 81.46 % top-1 for DeiT-B with its own form and tuned settings, and 81.8 % for the dense
  model.
- The fewer tokens and channels a model has, the larger is the share of its latency that selection takes. On DeiT-S the
  methods are closer in latency: see [cost-of-selection.md](cost-of-selection.md).
- A run of the dense digits model takes 1.5 ms. On OpenVINO in bf16, selection takes more time than it saves there: with
  0.7 of the MACs, `measured` takes 1.09 of the dense model's time, token merging 1.50 and the paper's form 1.40.
- The digits model with average pooling is smaller still. On OpenVINO, every method that selects tokens is slower than
  the dense model there. With 0.55 of its MACs, OpenVINO crashes on the paper's form
  ([operations.md](../../docs/operations.md)).
- To reproduce the paper's published figures, use `--preset paper` with the sparsity and alpha that its authors used for
  DeiT. This form is tested against outputs of their code.
- Measure on your model and your data: `gtp-export validate DIR --data IMAGES` shows accuracy compared with the dense
  baseline.
"""


def write(found: dict[str, Any], output: Path) -> None:
    """Write the page and the plots."""
    parts = [HEAD]
    for name, model in found.items():
        backends = list(model["rows"][0]["latency"])
        parts.append(f"## {model['title']}\n\n{model['images']} images, dense top-1 {model['dense_top1']:.2f} %.\n\n")
        for backend in backends:
            picture = output.with_name(f"{output.name}-{name}-{backend}.png")
            _plot(model["rows"], backend, f"{model['title']}\n{NAMES.get(backend, backend)}", picture)
            parts.append(f"![{NAMES.get(backend, backend)}]({picture.name})\n")
        parts.append("\n" + _table(model["rows"], backends) + "\n")
    output.with_suffix(".md").write_text("".join(parts) + FOOT, encoding="utf-8")


def at_latency(rows: list[dict[str, Any]], backend: str, budget: float) -> tuple[float, float] | None:
    """Return divergence and top-1 of one method at a latency, interpolated; None outside of its points."""
    points = sorted((row["latency"][backend], row["divergence"], row["top1"]) for row in rows)
    for (low, *slower), (high, *faster) in pairwise(points):
        if low <= budget <= high:
            share = (budget - low) / max(high - low, 1e-9)
            logs = [math.log(max(value, 1e-9)) for value in (slower[0], faster[0])]
            return math.exp(logs[0] + share * (logs[1] - logs[0])), slower[1] + share * (faster[1] - slower[1])
    return None


def _table(rows: list[dict[str, Any]], backends: list[str]) -> str:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = ["| runtime | latency | " + " | ".join(methods) + " |", "| --- | ---: |" + " ---: |" * len(methods)]
    for backend in backends:
        for budget in BUDGETS:
            own = ([row for row in rows if row["method"] == method] for method in methods)
            points = [at_latency(found, backend, budget) for found in own]
            if any(points):
                lines.append(f"| {NAMES.get(backend, backend)} | {budget:g} | " + " | ".join(map(_cell, points)) + " |")
    return "Divergence (top-1, %) at a share of the dense model's latency:\n\n" + "\n".join(lines) + "\n"


def _cell(found: tuple[float, float] | None) -> str:
    return "-" if found is None else f"{found[0]:.4f} ({found[1]:.1f})"


def _plot(rows: list[dict[str, Any]], backend: str, title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.2))
    for method in dict.fromkeys(row["method"] for row in rows):
        points = sorted(
            (row["latency"][backend], max(row["divergence"], 1e-6)) for row in rows if row["method"] == method
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=method)
    axes.set(xlabel="latency, share of the dense model's", ylabel="divergence from the dense model, nats", yscale="log")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
