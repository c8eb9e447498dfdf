"""ONNX graphs: traced from a model, simplified, written in a precision, checked, described and saved.

The way of a graph: ``trace`` → ``rules`` → ``precision`` → ``check`` → ``describe`` → ``files``. ``structure`` says
what its nodes are for.
"""
