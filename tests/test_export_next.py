"""The command that an export names as the next one."""

from dataclasses import replace
from pathlib import Path

import pytest

from gtp_export.commands import export as command
from gtp_exporters import Exported
from gtp_exporters.proof import Proof
from gtp_runtime import read_manifest


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
    assert command._next(Exported(digits, manifest, proof)) == f"gtp-export {wanted} {digits}/model.onnx"
