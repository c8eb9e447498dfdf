"""How far schedules are from the dense model: distances of outputs, and a judge that measures each chunk once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.fitting.suffix import SuffixRunner
from gtp_models.heads import projects
from gtp_models.schedules import Amounts
from gtp_runtime import accuracy
from gtp_runtime.metrics import Own, as_metric

Distance = Callable[[Tensor, Tensor], Tensor]  # of the dense and the reduced output of (B, …) images: (B,)
CERTAIN = 1.0  # standard errors by which a schedule has to be behind on the first images to be given up
FEWEST = 8  # images, at least
POWER = 0.5  # of distances, whose tail is long: the mean of so few follows a handful of images


def divergence(dense: Float[Tensor, "b classes"], reduced: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Return the Kullback-Leibler divergence of the dense to the reduced class probabilities, in nats; from logits."""
    return _divergence(dense, reduced, "softmax")


def divergence_by_class(dense: Float[Tensor, "b classes"], reduced: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Return the divergence of the dense to the reduced probabilities of each class apart, summed, in nats; from logits
    of a model of one or several labels (sigmoid).
    """
    return _divergence(dense, reduced, "sigmoid")


def _divergence(dense: Tensor, reduced: Tensor, activation: str) -> Tensor:
    expected, actual = (logits.detach().cpu().numpy() for logits in (dense, reduced))
    return torch.from_numpy(accuracy.divergence(expected, actual, activation))


def squared_error(dense: Float[Tensor, "b ..."], reduced: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Return the squared error as a share of the dense output's squares: of features, maps and other outputs."""
    dense, reduced = dense.double().flatten(1), reduced.double().flatten(1)
    return (reduced - dense).square().sum(1) / dense.square().sum(1).clamp(min=1e-30)


def distance_by(own: Own, name: str) -> Distance:
    """Return the distance that a metric of the user's says (``gtp_runtime.metrics.as_metric``).

    Args:
        own: gets the dense and the reduced output as numpy arrays by ``name``, and None for labels.
        name: of the output.

    Raises:
        ConfigError: a metric of all images together, which says nothing of each image.
    """
    metric = as_metric(own)
    if metric.combine is not None:
        raise ConfigError(f"the metric {metric.name} is of all images together: a schedule is fitted image by image")

    def distance(dense: Tensor, reduced: Tensor) -> Tensor:
        left, right = ({name: output.detach().cpu().numpy()} for output in (dense, reduced))
        return torch.from_numpy(metric.scores(left, right, None)[accuracy.DISTANCE])

    distance.__name__ = metric.name
    return distance


def distance_for(model: Any, output: Tensor) -> Distance:
    """Return ``divergence`` where a timm model's output is logits, else ``squared_error``."""
    classes = getattr(model, "num_classes", 0)
    logits = output.ndim == 2 and classes > 1 and output.shape[1] == classes
    config = getattr(model, "pretrained_cfg", None) or {}
    name = ".".join(part for part in (config.get("architecture"), config.get("tag")) if part)
    return divergence if logits and not (name and projects(model, name)) else squared_error


class Judge:
    """Distances of schedules from the dense model.

    Args:
        runner: the model and its images.
        dense: the dense model's output for every chunk.
        distance: of outputs.
    """

    def __init__(self, runner: SuffixRunner, dense: Sequence[Tensor], distance: Distance) -> None:
        self.runner, self.dense, self.distance = runner, dense, distance
        self.runs = 0  # of a schedule on a chunk
        self._scores: dict[tuple[Amounts, int], Tensor] = {}

    def scores(self, num_prop: Amounts, chunks: Sequence[int]) -> Float[Tensor, " images"]:
        """Return the distance of every image of some chunks."""
        return torch.cat([self._chunk(num_prop, chunk) for chunk in chunks])

    def mean(self, num_prop: Amounts, chunks: Sequence[int]) -> float:
        """Return the mean distance over some chunks."""
        return self.scores(num_prop, chunks).mean().item()

    def level(self, num_prop: Amounts, chunks: Sequence[int]) -> float:
        """Return the typical distance over some chunks: a power mean, which few images do not rule."""
        return (self.scores(num_prop, chunks) ** POWER).mean().item() ** (1 / POWER)

    def raced(self, num_prop: Amounts, rival: Amounts, factor: float, chunks: Sequence[int]) -> Sequence[int]:
        """Measure a schedule until its distances times a factor are clearly above a rival's; return those chunks."""
        behind = torch.zeros(0, dtype=torch.float64)
        for count, chunk in enumerate(chunks, 1):
            scores = factor * self._chunk(num_prop, chunk)
            behind = torch.cat([behind, scores**POWER - self._chunk(rival, chunk) ** POWER])
            if len(behind) >= FEWEST and behind.mean() > CERTAIN * behind.std() / len(behind) ** 0.5:
                return chunks[:count]
        return chunks

    def surely_nearer(self, num_prop: Amounts, other: Amounts, chunks: Sequence[int], errors: float) -> bool:
        """Whether a schedule is nearer to dense than another on average, and typically so by so many standard errors of
        the paired differences.
        """
        scores, others = self.scores(num_prop, chunks), self.scores(other, chunks)
        nearer = others**POWER - scores**POWER
        is_sure = nearer.mean() > errors * nearer.std() / len(nearer) ** 0.5
        return bool(is_sure and scores.mean() < others.mean())

    def _chunk(self, num_prop: Amounts, chunk: int) -> Tensor:
        if (num_prop, chunk) not in self._scores:
            output = self.runner.run(num_prop, chunk)
            self._scores[num_prop, chunk] = self.distance(self.dense[chunk], output).double().cpu().clamp(min=0)
            self.runs += 1
        return self._scores[num_prop, chunk]
