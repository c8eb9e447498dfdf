"""A program for the converters' environment: a .tflite file with float32 weights in, one with fp16 weights out.

    python half_tflite.py SOURCE TARGET

Weights are stored in half the bytes and computed with in float32. It imports nothing of gtp-export.
"""

import sys


def main(source: str, target: str) -> None:
    """Write ``target`` with ai-edge-quantizer."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    recipe = recipe_manager.RecipeManager()
    recipe.add_quantization_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        ),
    )
    quantizer.Quantizer(source, recipe.get_quantization_recipe()).quantize().export_model(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
