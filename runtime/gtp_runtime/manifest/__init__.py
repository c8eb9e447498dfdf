"""The manifest, ``model.json``: the one schema of what an export wrote, and the files that it lists."""

from gtp_runtime.manifest.files import bytes_sha256, check_file, file_sha256, find_graph, is_present, read_checked, twin
from gtp_runtime.manifest.reading import parse_manifest, read_manifest, write_manifest
from gtp_runtime.manifest.schema import (
    CACHE_SUFFIX,
    ENGINE_SUFFIX,
    FILE_NAME,
    MODEL_NAME,
    REFERENCE_NAME,
    SCHEMA_VERSION,
    SIGNATURE_NAME,
    WORK_NAME,
    EngineInfo,
    FileEntry,
    LayerEntry,
    Manifest,
    ModelInfo,
    QuantizationInfo,
    TensorSpec,
    WeightsInfo,
)
from gtp_runtime.manifest.updating import update_manifest

__all__ = [
    "CACHE_SUFFIX",
    "ENGINE_SUFFIX",
    "FILE_NAME",
    "MODEL_NAME",
    "REFERENCE_NAME",
    "SCHEMA_VERSION",
    "SIGNATURE_NAME",
    "WORK_NAME",
    "EngineInfo",
    "FileEntry",
    "LayerEntry",
    "Manifest",
    "ModelInfo",
    "QuantizationInfo",
    "TensorSpec",
    "WeightsInfo",
    "bytes_sha256",
    "check_file",
    "file_sha256",
    "find_graph",
    "is_present",
    "parse_manifest",
    "read_checked",
    "read_manifest",
    "twin",
    "update_manifest",
    "write_manifest",
]
