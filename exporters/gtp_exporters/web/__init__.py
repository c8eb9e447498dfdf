"""A static site that runs an export in a browser: it proves parity there, times it beside dense and shows what it does.

The page is plain HTML, CSS and JavaScript (``page/``), the same for every model; what differs is in ``site.json`` and
``pack.bin`` (``facts``), the graphs, and onnxruntime-web (``ort``). The site needs no network but its own server.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtp_exporters.draft import check_fixed
from gtp_exporters.errors import LimitError
from gtp_exporters.web import ort
from gtp_exporters.web.facts import graph_facts, join, model_facts, pack_arrays
from gtp_runtime.errors import OutputError
from gtp_runtime.manifest import (
    REFERENCE_NAME,
    FileEntry,
    Manifest,
    check_file,
    file_sha256,
    find_graph,
    read_manifest,
    twin,
)
from gtp_runtime.messages import one_line
from gtp_runtime.reference import check_fits, read_reference

__all__ = ["Site", "SiteOptions", "write_site"]

PAGE = Path(__file__).parent / "page"
SITE_NAME = "site.json"
MADE_BY = "gtp-export web"
# A browser's WebAssembly has 32-bit addresses, and holds the file of a graph beside its weights while it loads.
LARGEST = 1 << 31  # bytes of the graphs that a page loads
HEAVY = 1 << 29  # from here on phones may end the page


@dataclass(frozen=True)
class SiteOptions:
    """How a site is written.

    Attributes:
        ort_web: onnxruntime-web at hand, its .tgz or folder; None asks npm.
        webgpu: whether the site can use WebGPU too, which adds 27 MB.
        dense: whether the dense baseline is in the site, to time the graph beside it.
    """

    ort_web: Path | None = None
    webgpu: bool = True
    dense: bool = True


@dataclass(frozen=True)
class Site:
    """A site that was written.

    Attributes:
        directory: where.
        files: size of each file in bytes, by its path in the site.
        notes: what its users may meet.
    """

    directory: Path
    files: dict[str, int]
    notes: list[str] = field(default_factory=list)


def write_site(path: Path, output: Path, options: SiteOptions | None = None, precision: str | None = None) -> Site:
    """Write the site of an export.

    Args:
        path: an artifact directory, or a graph of it.
        output: the folder to write: new, empty, or an earlier site, which is replaced once the new one is whole.
        options: what is in it.
        precision: which graph of a directory; default ``model.onnx``.

    Raises:
        ManifestError: a file is missing or not what its manifest says.
        LimitError: a file that no browser runs: an engine, a graph that is too large or for a range of batches; another
            onnxruntime-web.
        MissingPackageError: npm is not installed, or cannot fetch onnxruntime-web.
        OutputError: the folder holds other files, or cannot be written.
    """
    options = options or SiteOptions()
    file = find_graph(path, precision)
    manifest = read_manifest(file.parent)
    graphs = _graphs(file, manifest, options.dense)
    size = _size(manifest, graphs.values())
    if size > LARGEST:
        raise LimitError(
            f"the graphs have {size / 1e6:.0f} MB, and a page can load {LARGEST / 1e6:.0f} MB: choose a smaller "
            f"precision{', or leave the dense baseline out with --no-dense' if len(graphs) > 1 else ''}"
        )
    try:
        with _replacing(output) as place:
            _fill(place, file.parent, manifest, graphs, options)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}; choose another -o") from error
    return Site(output, _sizes(output), _notes(size, graphs))


def _graphs(file: Path, manifest: Manifest, dense: bool) -> dict[str, Path]:
    """Return the graphs of the site: "model", and "dense" where there is one."""
    if file.suffix != ".onnx" or manifest.entry(file.name).role not in ("model", "dense"):
        raise LimitError(
            f"{file} is no ONNX graph, and a browser runs no other: give an artifact directory or a .onnx of it"
        )
    baseline = twin(file) if dense else None
    paths = {"model": file} | ({"dense": baseline} if baseline is not None and baseline.suffix == ".onnx" else {})
    for graph in paths.values():
        check_file(graph, manifest)
        check_fixed(manifest.entry(graph.name), "the page")
    return paths


def _size(manifest: Manifest, graphs: Any) -> int:
    return sum(manifest.files[name].size for graph in graphs for name in _files(graph.name, manifest))


def _files(name: str, manifest: Manifest) -> list[str]:
    """Return the names of a graph's files: its own, and that of its weights."""
    data = manifest.files[name].external_data
    return [name] if data is None else [name, data]


def _notes(size: int, graphs: dict[str, Path]) -> list[str]:
    notes = [] if "dense" in graphs else ["no dense baseline in the site: the page shows latency alone"]
    if size > HEAVY:
        notes.append(f"the page loads {size / 1e6:.0f} MB of graphs: phones may end it for want of memory")
    return notes


def _fill(place: Path, directory: Path, manifest: Manifest, graphs: dict[str, Path], options: SiteOptions) -> None:
    """Write every file of a site; ``site.json``, which lists them all, comes last."""
    check_file(directory / REFERENCE_NAME, manifest)
    pack = read_reference(directory / REFERENCE_NAME)
    entries = {role: manifest.entry(graph.name) for role, graph in graphs.items()}
    check_fits(pack, manifest, entries["model"])
    (place / "ort").mkdir()
    ort.copy_package(options.ort_web, place / "ort", options.webgpu)
    for source in sorted(PAGE.iterdir()):
        shutil.copyfile(source, place / source.name)
    (place / "model").mkdir()
    for graph in graphs.values():
        for name in _files(graph.name, manifest):
            shutil.copyfile(directory / name, place / "model" / name)
    content, arrays = join(pack_arrays(pack))
    (place / "pack.bin").write_bytes(content)
    facts = _facts(manifest, graphs, entries, options, arrays)
    facts["files"] = {name: {"size": size, "sha256": file_sha256(place / name)} for name, size in _sizes(place).items()}
    (place / SITE_NAME).write_text(json.dumps(facts, indent=1, allow_nan=False), "utf-8")


def _facts(
    manifest: Manifest,
    graphs: dict[str, Path],
    entries: dict[str, FileEntry],
    options: SiteOptions,
    arrays: dict[str, Any],
) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "ort": {"version": ort.VERSION, "webgpu": options.webgpu},
        "model": model_facts(manifest),
        "graphs": {role: graph_facts(graphs[role].name, entry) for role, entry in entries.items()},
        "pack": arrays,
    }


def _sizes(directory: Path) -> dict[str, int]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return dict(sorted((path.relative_to(directory).as_posix(), path.stat().st_size) for path in files))


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the output, which takes its place at the end. Only an earlier site is replaced.

    Raises:
        OutputError: the output is a file, or holds files that are not of a site.
    """
    _check_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".gtp-export-", dir=output.parent))
    try:
        place = work / "site"
        place.mkdir()
        yield place
        _check_replaceable(output)
        earlier = work / "earlier"
        if output.exists():
            output.rename(earlier)
        try:
            place.rename(output)
        except OSError:
            if earlier.exists():
                earlier.rename(output)
            raise
    finally:
        with suppress(OSError):
            shutil.rmtree(work)


def _check_replaceable(output: Path) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if output.is_symlink() or not output.is_dir():
        raise OutputError(f"{output} is there already and no folder: move it away, or choose another -o")
    others = sorted(set(_everything(output)) - _listed(output))
    if others:
        raise OutputError(
            f"{output} holds {one_line(others[0])}, which is of no site: move it away, or choose another -o"
        )


def _everything(directory: Path) -> Iterator[str]:
    """Yield what a folder holds: all but folders, which a site has two of."""
    return (
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _listed(directory: Path) -> set[str]:
    """Return the files of an earlier site; none where the folder holds no site."""
    try:
        facts = json.loads((directory / SITE_NAME).read_text("utf-8"))
        return {SITE_NAME, *facts["files"]} if facts["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
