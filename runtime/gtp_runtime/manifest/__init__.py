"""The manifest, ``model.json``: the one schema of what an export wrote, and the files that it lists."""

from gtp_runtime.manifest.files import bytes_sha256, check_file, file_sha256, twin
from gtp_runtime.manifest.reading import read_manifest, write_manifest
from gtp_runtime.manifest.schema import (
    FILE_NAME,
    REFERENCE_NAME,
    SCHEMA_VERSION,
    FileEntry,
    LayerEntry,
    Manifest,
    ModelInfo,
    TensorSpec,
    WeightsInfo,
)
from gtp_runtime.manifest.updating import update_manifest

__all__ = [
    "FILE_NAME",
    "REFERENCE_NAME",
    "SCHEMA_VERSION",
    "FileEntry",
    "LayerEntry",
    "Manifest",
    "ModelInfo",
    "TensorSpec",
    "WeightsInfo",
    "bytes_sha256",
    "check_file",
    "file_sha256",
    "read_manifest",
    "twin",
    "update_manifest",
    "write_manifest",
]
