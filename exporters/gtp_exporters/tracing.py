"""From a patched PyTorch model to an ONNX graph of static shape."""

import re
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from gtp_models.gtp.patch import is_patched
from gtp_models.gtp.trace import Layer, recording

_SCOPE = re.compile(r"\bmodel\.blocks\.(\d+)")


class Traced(nn.Module):
    """The model with the outputs of an export: ``logits``, and ``propagated`` (B, all that left) int32."""

    def __init__(self, model: Any, with_trace: bool) -> None:
        super().__init__()
        self.model: Any = model
        self.with_trace = with_trace and is_patched(model) and any(model.blocks.num_prop)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return ["logits", "propagated"] if self.with_trace else ["logits"]

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not self.with_trace:
            return self.model(images)
        with recording(self.model.blocks, keep=_left) as left:
            logits = self.model(images)
        ids = torch.cat([ids.reshape(len(images), -1) for ids in left if ids is not None], dim=1)
        return logits, (ids - self.model.num_prefix_tokens).int()


def _left(layer: Layer) -> Tensor | None:
    return layer.left


def to_onnx(
    model: Any, batch: int, opset: int, with_trace: bool = True
) -> tuple[onnx.ModelProto, dict[str, int | None]]:
    """Trace a timm model, patched or not, with torch's exporter.

    Args:
        model: in eval mode; its ``patch_embed`` gives the image size.
        batch: images a run.
        opset: ONNX opset.
        with_trace: add the output ``propagated`` where tokens leave.

    Returns:
        The graph, and for each tensor that a module made the number of its layer (None outside of the blocks).
    """
    wrapped = Traced(model, with_trace).eval()
    images = torch.zeros(batch, 3, *model.patch_embed.img_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        program = torch.onnx.export(
            wrapped,
            (images,),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=wrapped.output_names,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto, _layers_of_tensors(proto)


def _stable_sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
    """aten.sort.stable as TopK of all entries: of equal ones the lower index comes first, as ONNX defines it."""
    from onnxscript import opset18 as op

    size = op.Constant(value_ints=[self.shape[dim]])
    return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


def _layers_of_tensors(proto: onnx.ModelProto) -> dict[str, int | None]:
    layers: dict[str, int | None] = {}
    for node in proto.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "")
        found = _SCOPE.findall(scopes)
        if found:
            layers.update(dict.fromkeys(node.output, int(found[-1])))
        elif "'model." in scopes and not re.search(r"'model\.blocks'", scopes):
            layers.update(dict.fromkeys(node.output, None))
    return layers
