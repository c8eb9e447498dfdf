"""TensorRT engines from exported graphs: needs TensorRT and onnx, neither torch nor timm, and for RTX no GPU."""
