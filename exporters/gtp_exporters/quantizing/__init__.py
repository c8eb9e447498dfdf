"""INT8 by static quantisation: ranges measured on images, Q/DQ nodes in the form of a target, and a gate.

The way of an int8 file: its products (``graph.structure``), their ranges (``calibration``), Q/DQ written by ONNX
Runtime's quantiser (``quantizer``), an attempt (``job``) that is judged against the float32 twin (``gate``), layers
left out until that passes (``search``), written beside the twin and put in place (``run``).
"""
