"""Compiles a graph for Qualcomm's NPU with ONNX Runtime's plug-in, ahead of time: no device is needed.

Model numbers and architectures of SoCs: Qualcomm's AI Engine Direct, as ExecuTorch's qc_schema.py lists them.
"""

from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.errors import ConversionError
from gtp_runtime.backends.onnxruntime import import_onnxruntime
from gtp_runtime.backends.qnn import session_settings
from gtp_runtime.messages import one_line


@dataclass(frozen=True)
class Soc:
    """A SoC: the number that Qualcomm's libraries know it by, and the architecture of its NPU; fp16 begins with 69."""

    model: int
    architecture: int


SOCS = {
    "SM8450": Soc(36, 69),  # Snapdragon 8 Gen 1
    "SM8475": Soc(42, 69),  # 8+ Gen 1
    "SM8550": Soc(43, 73),  # 8 Gen 2
    "SM8650": Soc(57, 75),  # 8 Gen 3
    "SM8750": Soc(69, 79),  # 8 Elite
    "SM8850": Soc(87, 81),  # 8 Elite Gen 5
}


def to_qnn(graph: Path, target: Path, precision: str, soc: str, inputs: Path | None = None) -> str:  # noqa: ARG001
    """Compile a float32 graph to a context; returns the plug-in's version.

    It computes in fp16, and with ``inputs`` in int8 where ``qnn_int8`` puts quantisers.

    Raises:
        ConversionError: the plug-in refuses the graph, or some of its nodes.
    """
    ort, chip = import_onnxruntime(), SOCS[soc]
    if inputs is not None:
        from gtp_exporters.converting.qnn_int8 import write_int8

        graph = write_int8(graph, inputs)
    settings, version = session_settings(
        ort, soc_model=str(chip.model), htp_arch=str(chip.architecture), enable_htp_fp16_precision="1"
    )
    made = target.with_name(f"{target.name}.onnx")  # the plug-in takes no other ending
    wanted = {"ep.context_enable": "1", "ep.context_file_path": str(made), "ep.context_embed_mode": "1"}
    for name, value in wanted.items():
        settings.add_session_config_entry(name, value)
    try:
        ort.InferenceSession(str(graph), settings)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ConversionError(f"QNN cannot compile {graph.name} for {soc}: {one_line(error)}") from error
    import onnx

    kinds = [node.op_type for node in onnx.load(made, load_external_data=False).graph.node] if made.exists() else []
    if kinds != ["EPContext"]:
        raise ConversionError(f"QNN made no single context of {graph.name} for {soc}, but {len(kinds)} nodes")
    made.replace(target)
    return version
