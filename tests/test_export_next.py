"""The command that an export names as the next one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gtp_export.commands import export as command
from gtp_exporters import Exported
from gtp_exporters.proof import Proof
from gtp_runtime import read_manifest
from gtp_runtime.parity import compare


@pytest.mark.parametrize(
    ("checked", "target", "wanted"),
    [
        (False, "tensorrt", "validate"),
        (False, "onnxruntime", "validate"),
        (True, "tensorrt", "build-engine"),
        (True, "openvino", "inspect"),
    ],
)
def test_next_command(digits: Path, checked: bool, target: str, wanted: str) -> None:
    manifest = replace(read_manifest(digits), target=target)
    proof = Proof(None, [], "bf16") if checked else None
    assert command._next(Exported(digits, manifest, proof)) == [wanted, f"{digits}/model.onnx"]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("tensorrt", "build-engine {graph}"),
        ("openvino", "predict {graph} IMAGE --backend openvino"),
    ],
)
def test_next_command_where_openvino_proved_it(digits: Path, target: str, wanted: str) -> None:
    manifest = replace(read_manifest(digits), target=target)
    proof = Proof(compare(np.eye(3), np.eye(3)), [], backend="openvino")
    words = command._next(Exported(digits, manifest, proof))
    assert " ".join(words) == wanted.format(graph=digits / "model.onnx")
