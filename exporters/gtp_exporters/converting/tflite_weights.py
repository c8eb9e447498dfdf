"""A program for the converters' environment: a .tflite file with float32 weights in, one with smaller weights out.

    python tflite_weights.py SOURCE TARGET fp16|int8_weights

fp16 weights are computed with in float32. int8 weights, a scale for each channel, are those of products with constants
alone; LiteRT quantises what is multiplied with them as it runs. It imports nothing of gtp-export.
"""

import sys


def main(source: str, target: str, precision: str) -> None:
    """Write ``target`` with ai-edge-quantizer."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    if precision == "fp16":
        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        recipe.add_quantization_config(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
        )
    else:
        products = qtyping.TFLOperationName.FULLY_CONNECTED
        recipe.add_dynamic_config(regex=".*", operation_name=products, num_bits=8)
    quantizer.Quantizer(source, recipe.get_quantization_recipe()).quantize().export_model(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
