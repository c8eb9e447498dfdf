"""From a patched PyTorch model to an ONNX graph of static shape, and the layer that each of its nodes belongs to."""

import gc
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from gtp_exporters.graph.rules import tidy
from gtp_exporters.outputs import LOGITS, Outputs
from gtp_models.frame.families.transformers_layers import layers_of
from gtp_models.frame.patch import is_patched
from gtp_models.frame.trace import recording


class Traced(nn.Module):
    """The model with the outputs of an export: its answers, ``propagated`` (B, all that left) int32, and where each of
    these tokens is merged into one other, ``received_by`` of the same shape.

    Args:
        model: a timm model, patched or not.
        with_trace: add ``propagated`` and ``received_by`` where tokens leave.
        pixels: mean and std of images that come as (B, H, W, 3) uint8; None for preprocessed (B, 3, H, W) float32.
        outputs: what the answers are (default: logits).
    """

    def __init__(
        self,
        model: Any,
        with_trace: bool,
        pixels: tuple[list[float], list[float]] | None = None,
        outputs: Outputs = LOGITS,
    ) -> None:
        super().__init__()
        self.model: Any = outputs.whole(model)
        self._vit = (model,)  # in a tuple: where the model is a part of the whole, it is registered there
        reduces = is_patched(model) and any(model.blocks.num_prop) and model.blocks.selects
        self.with_trace = with_trace and reduces
        self.with_receivers = self.with_trace and model.blocks.one_receiver
        self.pixels = pixels
        self.outputs = outputs

    @property
    def vit(self) -> Any:
        """The timm model."""
        return self._vit[0]

    @property
    def blocks_path(self) -> str:
        """Where the blocks are: "model.blocks", or "model.encoder.vit.blocks" in a module."""
        blocks = layers_of(self.vit)
        return next(name for name, part in self.named_modules() if part is blocks)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        traces = ["propagated"] if self.with_trace else []
        return [*self.outputs.names, *traces, *(["received_by"] if self.with_receivers else [])]

    def example(self, batch: int) -> Tensor:
        """Return an input of the right shape and type."""
        height, width = self.vit.patch_embed.img_size
        if self.pixels is None:
            return torch.zeros(batch, 3, height, width)
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.pixels is not None:
            images = _normalise(images, *self.pixels)
        if not self.with_trace:
            answers = self.outputs.of(self.vit, images)
            return answers if len(answers) > 1 else answers[0]
        with recording(self.vit.blocks, keep=lambda layer: layer) as layers:
            answers = self.outputs.of(self.vit, images)
        traces = [self._joined([layer.left for layer in layers])]
        if self.with_receivers:
            traces.append(self._joined([layer.receivers for layer in layers]))
        return *answers, *traces

    def _joined(self, ids: list[Tensor | None]) -> Tensor:
        """Return the ids of all layers that reduce, (B, all) int32; 0 is the first patch."""
        rows = [part if part.ndim == 2 else part[None] for part in ids if part is not None]
        return (torch.cat(rows, dim=1) - self.vit.num_prefix_tokens).int()


def _normalise(pixels: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """(value / 255 - mean) / std, as one product and one difference."""
    scale = torch.tensor([1 / (255 * value) for value in std])
    shift = torch.tensor([part / value for part, value in zip(mean, std, strict=True)])
    return (pixels.float() * scale - shift).permute(0, 3, 1, 2)


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause Python's garbage collection, which walks over torch's millions of objects: a sixth of the time of tracing.

    What is garbage by then is collected at the end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect()


def to_onnx(traced: Traced, batch: int, opset: int) -> tuple[ir.Model, dict[str, int | None]]:
    """Trace a model with torch's exporter.

    Args:
        traced: the model, in eval mode, with the inputs and outputs of the export.
        batch: images a run.
        opset: ONNX opset.

    Returns:
        The graph, whose weights are the model's own tensors, and for each tensor that a module made the number of its
        layer (None outside of the blocks).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        program = torch.onnx.export(
            traced.eval(),
            (traced.example(batch),),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=traced.output_names,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
            optimize=False,  # tidy does
        )
    assert program is not None
    model = tidy(program.model)
    return model, _layers_of_tensors(model, traced.blocks_path)


def _stable_sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
    """aten.sort.stable as TopK of all entries: of equal ones the lower index comes first, as ONNX defines it."""
    from onnxscript import opset18 as op

    size = op.Constant(value_ints=[self.shape[dim]])
    return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


def _layers_of_tensors(model: ir.Model, blocks: str) -> dict[str, int | None]:
    scope = re.compile(rf"\b{re.escape(blocks)}\.(\d+)")
    layers: dict[str, int | None] = {}
    for node in model.graph:
        scopes = next((value for key, value in node.metadata_props.items() if key.endswith("name_scopes")), "")
        numbers = scope.findall(scopes)
        if numbers:
            layers.update(dict.fromkeys(_names(node), int(numbers[-1])))
        elif "'model." in scopes and f"'{blocks}'" not in scopes:
            layers.update(dict.fromkeys(_names(node), None))
    return layers


def _names(node: ir.Node) -> list[str]:
    return [value.name for value in node.outputs if value.name]


def nodes_per_layer(model: ir.Model, layers: Mapping[str, int | None], depth: int) -> list[int]:
    """Count the nodes of each of ``depth`` layers.

    A node whose output no module made (the recomposed attention, the propagation) belongs to the layer that
    the graph is in.

    Args:
        model: a graph in the order in which it was traced, simplified or not.
        layers: what ``to_onnx`` returned.
        depth: number of layers.
    """
    counts: Counter[int | None] = Counter()
    current: int | None = None
    for node in model.graph:
        known = [layers[value.name] for value in node.outputs if value.name and value.name in layers]
        current = known[0] if known else current
        counts[current] += 1
    return [counts[layer] for layer in range(depth)]
