"""``build_engine``: an exported graph in, an engine and its entry in the manifest out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from gtp_exporters.errors import EngineError, LimitError
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.files import read
from gtp_exporters.graph.precision import precision_of, to_precision
from gtp_exporters.options import check_precision
from gtp_exporters.tensorrt.building import BuiltEngine, EngineOptions, build, check_batch, inspect_plan
from gtp_runtime.atomic import flush, held, replacing, restoring
from gtp_runtime.backends.tensorrt.cuda import describe_device, jetpack
from gtp_runtime.backends.tensorrt.flavor import Flavor, find_flavor
from gtp_runtime.deploy.signing import Trust, is_signed, read_private_key, sign_again, verify
from gtp_runtime.errors import OutputError
from gtp_runtime.manifest import (
    ENGINE_SUFFIX,
    FILE_NAME,
    MODEL_NAME,
    SIGNATURE_NAME,
    EngineInfo,
    FileEntry,
    Manifest,
    check_file,
    file_sha256,
    read_manifest,
    write_manifest,
)
from gtp_runtime.messages import Progress, quiet


@dataclass(frozen=True)
class Engine:
    """A written engine: its file and its entry in the manifest."""

    path: Path
    entry: FileEntry


def build_engine(
    path: Path | str,
    output: Path | str | None = None,
    *,
    precision: str | None = None,
    flavor: str = "auto",
    options: EngineOptions | None = None,
    progress: Progress = quiet,
    key: Path | str | None = None,
    trusted_key: Path | str | None = None,
) -> Engine:
    """Build a TensorRT engine from an exported graph, on the device or, with RTX, ahead of time.

    Args:
        path: the .onnx file, or its artifact directory, which means ``model.onnx``.
        output: the engine file, in the artifact directory (default: the graph's name with the extension .engine).
        precision: a name of ``gtp_runtime.precisions.PRECISIONS``; default: the graph's own.
        flavor: "auto", "tensorrt" or "rtx".
        options: build options.
        progress: called with the current task and the share done.
        key: a private key that signs a signed directory again, with the engine and in the same version: a device's own.
        trusted_key: the public key that must have signed it before.

    Raises:
        ManifestError: the graph has no manifest, or differs from it.
        BackendMissingError: TensorRT is not installed.
        StaticCheckError, LimitError: TensorRT does not support the graph or the options; raised before the build.
        EngineError: TensorRT cannot parse or build the graph, or another export replaced the graph during the build.
        OutputError: the engine cannot be written, or the directory is signed and no key is given.
        SignatureError, KeyFileError: the earlier signature does not hold, or a key cannot be read.
    """
    source = Path(path) / MODEL_NAME if Path(path).is_dir() else Path(path)
    manifest = read_manifest(source.parent)
    check_file(source, manifest)
    seal = _seal(source.parent, key, trusted_key)
    if source.suffix != ".onnx":
        raise LimitError(f"{source} is not a graph: an engine is built from a .onnx file")
    target = _place(source, output)
    tensorrt, options = find_flavor(flavor), options or EngineOptions()
    batch = manifest.entry(source.name).batch
    check_batch(batch, options.opt_batch)
    graph = _prepare(read(source, manifest.entry(source.name).external_data), precision, progress)
    progress(f"parsing with {tensorrt.name} {tensorrt.version}")
    built = build(tensorrt, graph, options, progress, batch)
    info = _info(tensorrt, source, manifest, built, options)
    entry = _entry(manifest.entry(source.name), precision_of(graph), info)
    written = Engine(target, _write(target, built.plan, entry, info))
    seal()
    return written


def _seal(directory: Path, key: Path | str | None, trusted_key: Path | str | None) -> Callable[[], object]:
    """Check that a signed directory may be changed; return what signs it anew.

    Raises:
        OutputError: it is signed and the keys are not given, or the other way round.
        SignatureError, KeyFileError: as ``build_engine`` says.
    """
    if not is_signed(directory) and key is None and trusted_key is None:
        return lambda: None
    if not is_signed(directory):
        raise OutputError(f"{directory} is not signed: leave out --key and --trusted-key; gtp-export sign signs it")
    trust = Trust.of(trusted_key)
    if key is None or trust is None:
        raise OutputError(
            f"{directory} is signed, and an engine changes its manifest: give --trusted-key FILE, which signed it, and "
            f"--key FILE, a key of this device, which signs it anew; or build in a copy without {SIGNATURE_NAME}"
        )
    private, version = read_private_key(key), verify(directory, trust).signature.version
    return lambda: sign_again(directory, private, version)


def _prepare(graph: ir.Model, precision: str | None, progress: Progress) -> ir.Model:
    progress("checking the graph against TensorRT's limits")
    graph = infer_shapes(graph)
    check_static(graph, "tensorrt")
    if precision is None or precision == precision_of(graph):
        return graph
    check_precision(precision, "tensorrt")
    progress(f"writing {precision} into the graph")
    return to_precision(graph, precision)


def _place(source: Path, output: Path | str | None) -> Path:
    target = source.with_suffix(ENGINE_SUFFIX) if output is None else Path(output)
    if target.suffix != ENGINE_SUFFIX:
        raise LimitError(f"{target}: an engine's name ends in {ENGINE_SUFFIX}")
    if target.resolve().parent != source.resolve().parent:
        raise OutputError(
            f"{target} is outside of {source.parent}: an engine must be in the directory of its manifest; "
            "choose another -o"
        )
    return target


def _info(flavor: Flavor, source: Path, manifest: Manifest, built: BuiltEngine, options: EngineOptions) -> EngineInfo:
    memory, inspector = inspect_plan(flavor, built.plan)
    cache = options.timing_cache
    given: dict[str, Any] = {"workspace": options.workspace, "opt_level": options.opt_level}
    given |= {} if options.opt_batch is None else {"opt_batch": options.opt_batch}
    return EngineInfo(
        flavor=flavor.name,
        version=flavor.version,
        onnx=source.name,
        onnx_sha256=manifest.entry(source.name).sha256,
        layers=built.layers,
        build_seconds=round(built.seconds, 2),
        targets=list(options.targets),
        jetpack=jetpack(),
        options={**given, "timing_cache": None if cache is None or flavor.is_rtx else cache.name},
        device_memory=memory,
        inspector=inspector,
        **describe_device(),
    )


def _entry(graph: FileEntry, precision: str, info: EngineInfo) -> FileEntry:
    return replace(graph, sha256="", size=0, nodes=0, precision=precision, engine=info, external_data=None)


def _write(target: Path, plan: bytes, entry: FileEntry, info: EngineInfo) -> FileEntry:
    """Write engine and manifest, or neither.

    The engine is on the disk, under a temporary name, before the manifest lists it. Where the process is killed before
    the engine has its own name, whoever checks the file moves it (``atomic.finish``).
    """
    try:
        with held(target.parent), restoring(target.parent / FILE_NAME), replacing(target) as temporary:
            manifest = read_manifest(target.parent)
            _check_graph(manifest, info)
            temporary.write_bytes(plan)
            flush(temporary)
            entry = replace(entry, sha256=file_sha256(temporary), size=len(plan))
            write_manifest(_with_entry(manifest, target.name, entry), target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; nothing was changed") from error
    return entry


def _check_graph(manifest: Manifest, info: EngineInfo) -> None:
    """Raise ``EngineError`` unless the graph that the engine was built from is still the one in the manifest."""
    if info.onnx not in manifest.files or manifest.files[info.onnx].sha256 != info.onnx_sha256:
        raise EngineError(f"{info.onnx} was replaced during the build, so the engine was discarded: build it again")


def _with_entry(manifest: Manifest, name: str, entry: FileEntry) -> Manifest:
    """Return the manifest with a file's new entry, and without what was measured of the file before."""
    results = {
        kind: {file: result for file, result in files.items() if file != name}
        for kind, files in manifest.results.items()
    }
    return replace(manifest, files={**manifest.files, name: entry}, results=results)
