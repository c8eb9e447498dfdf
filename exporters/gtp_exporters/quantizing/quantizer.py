"""Writes int8 into a graph with ONNX Runtime's quantiser, from ranges that were measured before."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData

from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.describe import strip
from gtp_exporters.graph.files import save
from gtp_exporters.graph.structure import PRODUCTS, Product, inputs_of
from gtp_exporters.quantizing.options import SAFE_BITS, Form

_INFERRED = {"onnx.infer": "onnxruntime.quant"}  # tells the quantiser that shapes are inferred


@dataclass
class Source:
    """A float32 graph that is quantised again and again with the same ranges.

    Attributes:
        model: the graph, with inferred shapes.
        path: a temporary file of it.
        external: its weights are in a file beside it.
        products: those that can be quantised.
        target, form: the runtime that it is for, and how it wants int8.
        ranges: what was measured.
        shifts: what the biases of products gain when they are int8, by node.
        codes: the int8 weights of products, by node, each as its weights are; the nearest where a node has none.
    """

    model: ir.Model
    path: Path
    external: bool
    products: list[Product]
    target: str
    form: Form
    ranges: TensorsData | None = None
    shifts: dict[str, np.ndarray] = field(default_factory=dict)
    codes: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self) -> None:
        """Write the file again, after the graph was changed; products may take other values now."""
        nodes = {node.name: node for node in self.model.graph}
        self.products = [replace(product, inputs=inputs_of(nodes[product.node])) for product in self.products]
        save(self.model, self.path)

    @property
    def labels(self) -> list[str]:
        """Labels of the products, in order."""
        return list(dict.fromkeys(product.label for product in self.products))

    @property
    def values(self) -> list[str]:
        """Names of the values whose ranges are needed."""
        return list(dict.fromkeys(name for product in self.products for name in product.inputs))

    @property
    def ends(self) -> dict[str, tuple[float, float]]:
        """The range of each value, once it is known."""
        ranges = self.ranges
        assert ranges is not None
        pairs = {name: ranges[name].range_value for name in self.values}
        return {name: (float(low), float(high)) for name, (low, high) in pairs.items()}

    def quantized(self, labels: Collection[str]) -> ir.Model:
        """Return a copy in which the products of these labels are int8, checked for the target.

        Raises:
            StaticCheckError: the target does not take the graph.
        """
        nodes = [product.node for product in self.products if product.label in labels]
        if not nodes:  # the quantiser takes an empty list for all
            return self.model.clone()
        made = ir.from_proto(self._quantized(nodes))
        made.graph.sort()  # the quantiser appends its nodes
        _write_codes(made, {name: self.codes[name] for name in nodes if name in self.codes})
        graph = infer_shapes(made)
        check_static(graph, self.target)
        strip(graph)
        graph.graph.name = self.model.graph.name
        graph.producer_name, graph.producer_version = self.model.producer_name, self.model.producer_version
        graph.metadata_props.clear()
        graph.metadata_props.update(self.model.metadata_props)
        return graph

    def _quantized(self, nodes: list[str]) -> onnx.ModelProto:
        proto = onnx.load(self.path)
        onnx.helper.set_model_props(proto, _INFERRED)
        _shift(proto, {name: self.shifts[name] for name in nodes if name in self.shifts})
        options = {
            "ActivationSymmetric": self.form.symmetric,
            "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
            "QuantizeBias": self.form.int32_bias,
        }
        quantizer = QDQQuantizer(
            proto,
            per_channel=True,
            reduce_range=self.form.weight_bits == SAFE_BITS,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if self.form.symmetric else QuantType.QUInt8,
            tensors_range=copy.deepcopy(self.ranges),
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=list(PRODUCTS),
            extra_options=options,
        )
        quantizer.quantize_model()
        made: onnx.ModelProto = quantizer.model.model
        return made


@contextmanager
def source(model: ir.Model, products: list[Product], target: str, form: Form) -> Iterator[Source]:
    """Yield a graph that is ready to be calibrated and quantised."""
    with TemporaryDirectory(prefix="gtp-export-") as place:
        path = Path(place) / "float.onnx"
        names = {product.node for product in products}
        _part_sums(model, names)
        unshare_biases(model, names)
        external = save(model, path) is not None
        yield Source(model, path, external, products, target, form)


def _part_sums(model: ir.Model, names: Collection[str]) -> None:
    """Write what named Gemms without constant weights add (masks of similarities) as Adds: it is no bias."""
    for node in [node for node in model.graph if node.name in names and node.op_type == "Gemm"]:
        added, weight = node.inputs[2] if len(node.inputs) > 2 else None, node.inputs[1]
        if added is None or weight is None or weight.is_initializer():
            continue
        node.resize_inputs(2)
        output = node.outputs[0]
        total = ir.Value(name=f"{output.name}.sum", shape=output.shape, type=output.type)
        ir.convenience.replace_all_uses_with(output, total)
        model.graph.insert_after(node, ir.node("Add", [output, added], outputs=[total], name=f"{node.name}.add"))


def unshare_biases(model: ir.Model, names: Collection[str]) -> None:
    """Give each of the named products a bias of its own: an int32 bias fits one scale, and no other node."""
    for node in model.graph:
        bias = node.inputs[2] if node.name in names and len(node.inputs) > 2 else None
        if bias is not None and bias.is_initializer() and len(bias.uses()) > 1:
            assert bias.const_value is not None
            name = f"{node.name}.bias"
            tensor = ir.tensor(bias.const_value.numpy(), bias.dtype, name=name)
            own = ir.Value(name=name, shape=bias.shape, type=bias.type, const_value=tensor)
            model.graph.register_initializer(own)
            node.replace_input_with(2, own)


def _write_codes(model: ir.Model, codes: Mapping[str, np.ndarray]) -> None:
    """Put chosen codes in place of the nearest ones, by the names of the products."""
    nodes = {node.name: node for node in model.graph}
    for name, chosen in codes.items():
        weight = nodes[name].inputs[1]
        back = None if weight is None else weight.producer()
        assert back is not None and back.op_type == "DequantizeLinear"
        nearest = back.inputs[0]
        assert nearest is not None
        nearest.const_value = ir.tensor(chosen, name=nearest.name)


def _shift(proto: onnx.ModelProto, shifts: Mapping[str, np.ndarray]) -> None:
    """Add to the biases of products, by the names of their nodes, where they have one of their own."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.name in shifts and len(node.input) > 2 and node.input[2] in weights:
            bias = weights[node.input[2]]
            array = onnx.numpy_helper.to_array(bias) + shifts[node.name]
            bias.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), bias.name))
