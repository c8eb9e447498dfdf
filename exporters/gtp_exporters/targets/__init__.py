"""What runtimes and compilers take of ONNX, by their documentation: facts (``operators``) and reading (``reading``)."""
