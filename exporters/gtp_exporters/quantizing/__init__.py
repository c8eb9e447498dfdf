"""INT8 by static quantisation: ranges measured on images, Q/DQ nodes in the form of a target, and a gate.

The way of an int8 file: products found by structure (``products``), ranges (``calibration``), Q/DQ written by ONNX
Runtime's quantiser (``quantizer``), judged against the float32 twin (``gate``), layers left out until that passes
(``sensitivity``, ``search``), written beside the twin and put in place (``run``, ``placing``).
"""
