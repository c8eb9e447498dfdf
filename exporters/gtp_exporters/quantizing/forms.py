"""The form of int8 that each target wants.

In every form only products with constant weights are quantised: their weights by channel, symmetric, and their input
as a whole. Their output stays float: nothing is rounded twice, and the products of attention stand between floats.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """How a target wants Q/DQ nodes.

    Attributes:
        symmetric: inputs are int8 with zero point 0; otherwise uint8 with a zero point of their own.
        int32_bias: biases are int32 at the scale of the product; otherwise float.
        embedding: the patch embedding's convolution is quantised as well.
    """

    symmetric: bool
    int32_bias: bool
    embedding: bool


FORMS: dict[str, Form] = {
    # On x86, QGemm multiplies uint8 by int8 with an int32 bias in one kernel; with int8 inputs it is as slow as fp32.
    "onnxruntime": Form(symmetric=False, int32_bias=True, embedding=False),
    # TensorRT takes zero points of 0 alone, and biases in float.
    "tensorrt": Form(symmetric=True, int32_bias=False, embedding=False),
    # OpenVINO takes any; asymmetric is nearer to float32, and the embedding gains a little.
    "openvino": Form(symmetric=False, int32_bias=False, embedding=True),
}
