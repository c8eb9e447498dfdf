"""A program for the converters' environment: a .tflite file with float32 weights in, one with smaller weights out.

    python tflite_weights.py SOURCE TARGET fp16|int8_weights|int8 [INPUTS.npy]

fp16 weights are computed with in float32. int8 weights, a scale for each channel, are those of products with constants
alone; LiteRT quantises what is multiplied with them as it runs, or for int8 by ranges measured on inputs, (runs, batch,
...): there a product that is an output stays float32, for the quantiser would give the output another name. It imports
nothing of gtp-export.
"""

import re
import sys
from typing import Any

import numpy as np


def main(source: str, target: str, precision: str, inputs: str = "") -> None:
    """Write ``target`` with ai-edge-quantizer."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager

    recipe, products = recipe_manager.RecipeManager(), qtyping.TFLOperationName.FULLY_CONNECTED
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
    elif precision == "int8":
        inner = f"^(?!({'|'.join(map(re.escape, signature(source)[2]))});?$)"
        recipe.add_static_config(regex=inner, operation_name=products, activation_num_bits=8, weight_num_bits=8)
    else:
        recipe.add_dynamic_config(regex=".*", operation_name=products, num_bits=8)
    maker = quantizer.Quantizer(source, recipe.get_quantization_recipe())
    ranges = maker.calibrate(runs(source, inputs), num_threads=1) if inputs else None
    maker.quantize(ranges).export_model(target)


def runs(source: str, inputs: str) -> dict[str, list[dict[str, Any]]]:
    """Return what a file is run with, by the name of its signature."""
    key, (images, *_), _ = signature(source)
    return {key: [{images: values} for values in np.load(inputs)]}


def signature(source: str) -> tuple[str, list[str], list[str]]:
    """Return the name of a file's one signature, and the names of its inputs and outputs."""
    from ai_edge_litert import interpreter

    ((key, names),) = interpreter.Interpreter(source).get_signature_list().items()
    return key, names["inputs"], names["outputs"]


if __name__ == "__main__":
    main(*sys.argv[1:])
