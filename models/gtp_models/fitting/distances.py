"""How far a reduced model's output is from the dense model's, for each image."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from gtp_models.heads import projects

Distance = Callable[[Tensor, Tensor], Tensor]  # of the dense and the reduced output of (B, …) images: (B,)


def divergence(dense: Float[Tensor, "b classes"], reduced: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Return the Kullback-Leibler divergence of the dense to the reduced class probabilities, in nats; from logits."""
    log_dense, log_reduced = (logits.double().log_softmax(-1) for logits in (dense, reduced))
    return (log_dense.exp() * (log_dense - log_reduced)).sum(-1).clamp(min=0)  # rounding alone falls below


def divergence_by_class(dense: Float[Tensor, "b classes"], reduced: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Return the divergence of the dense to the reduced probabilities of each class apart, summed, in nats; from logits
    of a model of one or several labels (sigmoid).
    """
    yes, no = dense.double().sigmoid(), (-dense.double()).sigmoid()
    apart = yes * (logsigmoid(dense.double()) - logsigmoid(reduced.double()))
    apart += no * (logsigmoid(-dense.double()) - logsigmoid(-reduced.double()))
    return apart.sum(-1).clamp(min=0)


def squared_error(dense: Float[Tensor, "b ..."], reduced: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Return the squared error as a share of the dense output's squares: of features, maps and other outputs."""
    dense, reduced = dense.double().flatten(1), reduced.double().flatten(1)
    return (reduced - dense).square().sum(1) / dense.square().sum(1).clamp(min=1e-30)


def distance_for(model: Any, output: Tensor) -> Distance:
    """Return ``divergence`` where a timm model's output is logits, else ``squared_error``."""
    classes = getattr(model, "num_classes", 0)
    logits = output.ndim == 2 and classes > 1 and output.shape[1] == classes
    config = getattr(model, "pretrained_cfg", None) or {}
    name = ".".join(part for part in (config.get("architecture"), config.get("tag")) if part)
    return divergence if logits and not (name and projects(model, name)) else squared_error
