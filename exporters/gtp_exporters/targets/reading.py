"""Reads graphs against what targets document that they take, before anything is compiled. No device is involved."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import get_const_tensor

from gtp_exporters.errors import LimitError, StaticCheckError
from gtp_exporters.graph.check import TENSORRT_OPERATORS, infer_shapes
from gtp_exporters.graph.files import read, without_unused
from gtp_exporters.graph.ranks import fits, to_form
from gtp_exporters.options import FORMS, MAX_TOPK
from gtp_exporters.targets.operators import NO, TARGETS, UNKNOWN, VERDICTS, YES, Limit, Target
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import FILE_NAME, Manifest, check_file, read_manifest
from gtp_runtime.manifest.schema import TRACES

ONNX_DOMAINS = ("", "ai.onnx")
FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _type(value: ir.Value | None) -> str:
    return "" if value is None or value.dtype is None else value.dtype.name


def _values(node: ir.Node) -> list[ir.Value]:
    return [value for value in (*node.inputs, *node.outputs) if value is not None]


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and get_const_tensor(value) is None


def _constant(value: ir.Value | None) -> np.ndarray:
    """Return the numbers of a constant; none where it is computed."""
    tensor = None if value is None else get_const_tensor(value)
    return np.zeros(0) if tensor is None else tensor.numpy()


def _attribute(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _is_dynamic(node: ir.Node) -> bool:
    shapes = [value.shape for value in _values(node) if value.shape is not None]
    return any(not isinstance(size, int) for shape in shapes for size in shape)


def _axis_is_not_last(node: ir.Node) -> bool:
    axis, rank = _attribute(node, "axis", -1), _rank(_input(node, 0))
    return axis not in (-1, rank - 1)


def _first_axis_is_long(node: ir.Node) -> bool:
    value = _input(node, 0)
    sizes = [] if value is None or value.shape is None else [*value.shape]
    return len(sizes) > 1 and isinstance(sizes[0], int) and sizes[0] > 1


def _gives_floats_between(node: ir.Node) -> bool:
    """Whether a product of dequantised factors is not quantised again."""
    makers = {value.producer() for value in node.inputs if value is not None}
    readers = {use.node.op_type for value in node.outputs for use in value.uses()}
    return any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers) and (
        readers != {"QuantizeLinear"}
    )


def _scale_differs(node: ir.Node) -> bool:
    return len({_type(value) for value in node.inputs if value is not None}) > 1


# What limits are about, by the words of ``Limit.when``.
CONDITIONS: dict[str, Callable[[ir.Node], bool]] = {
    "always": lambda node: True,
    "other domain": lambda node: node.domain not in ONNX_DOMAINS,
    "dynamic shape": _is_dynamic,
    "rank above 4": lambda node: max(map(_rank, _values(node)), default=0) > 4,
    "rank above 5": lambda node: max(map(_rank, _values(node)), default=0) > 5,
    "first axis above 1": _first_axis_is_long,
    "float64": lambda node: "DOUBLE" in map(_type, _values(node)),
    "bfloat16": lambda node: "BFLOAT16" in map(_type, _values(node)),
    "int64 data": lambda node: _type(_input(node, 0)) == "INT64",
    "uint8": lambda node: "UINT8" in map(_type, _values(node)),
    "zero point": lambda node: bool(_constant(_input(node, 2)).any()),
    "computed B": lambda node: _is_computed(_input(node, 1)),
    "computed B, not transposed": lambda node: _is_computed(_input(node, 1)) and not _attribute(node, "transB", 0),
    "summand not 1-D": lambda node: _input(node, 2) is not None and _rank(_input(node, 2)) != 1,
    "floats between": _gives_floats_between,
    "computed ids other than int32": lambda node: _is_computed(_input(node, 1)) and _type(_input(node, 1)) != "INT32",
    "scalar ids": lambda node: _rank(_input(node, 1)) == 0,
    "negative ids": lambda node: bool((_constant(_input(node, 1)) < 0).any()),
    "computed k": lambda node: _is_computed(_input(node, 1)),
    "k above 3840": lambda node: bool((_constant(_input(node, 1)) > MAX_TOPK).any()),
    "axis not last": _axis_is_not_last,
    "last of equals": lambda node: bool(_attribute(node, "select_last_index", 0)),
    "scale of another type": _scale_differs,
    "reduction": lambda node: (
        "reduction" in node.attributes and node.attributes["reduction"].as_string() not in ("", "none")
    ),
}


@dataclass(frozen=True)
class Row:
    """Nodes of one operator that a target takes alike.

    Attributes:
        operator: its name, with the domain where it is not ONNX's own.
        verdict: of ``VERDICTS``.
        reason: in words; "" where the target takes it as it is.
        source: a key of ``SOURCES``; "" where no source says anything.
        instead: what avoids it, beside another form of the graph.
        nodes: names of the nodes.
    """

    operator: str
    verdict: str
    reason: str
    source: str
    instead: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Way:
    """Another form of a graph, as options of ``export``, and how many of its nodes have each verdict."""

    options: tuple[str, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Reading:
    """A graph as a target's documentation has it.

    Attributes:
        file: name of the graph.
        rows: by operator, the worst verdict first.
        better: the form in which the fewest nodes are not taken, where that is fewer than now.
    """

    file: str
    rows: tuple[Row, ...]
    better: Way | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Nodes by verdict, in the order of ``VERDICTS``."""
        return _counts(self.rows)

    @property
    def ok(self) -> bool:
        """Whether no node is known not to be taken; those that no source says anything about count as taken."""
        return not self.counts[NO]


@dataclass(frozen=True)
class Check:
    """What a target takes of an export, by documentation.

    Attributes:
        target: its name in ``TARGETS``.
        readings: of each graph.
    """

    target: str
    readings: list[Reading] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no graph has a node that is known not to be taken."""
        return all(reading.ok for reading in self.readings)

    @property
    def sources(self) -> list[str]:
        """The keys of ``SOURCES`` that the rows rest on, in their order."""
        rows = [row for reading in self.readings for row in reading.rows if row.source]
        return list(dict.fromkeys(row.source for row in rows))


def check_target(path: Path, target: str) -> Check:
    """Read graphs against what a target documents that it takes.

    Args:
        path: an artifact directory, whose graphs are all read, or an ONNX file.
        target: a name of ``TARGETS``.

    Raises:
        LimitError: no such target, or a file that is no ONNX graph by its name.
        ManifestError: no file, no export, or a file that is not what its manifest says.
        StaticCheckError: a file that is no ONNX graph.
    """
    if target not in TARGETS:
        raise LimitError(f"target={target!r} is unknown: choose one of {', '.join(TARGETS)}")
    return Check(target, [read_graph(graph, target, name) for name, graph in _graphs(path)])


def _graphs(path: Path) -> Iterator[tuple[str, ir.Model]]:
    if not path.exists():
        raise ManifestError(f"no file {path}: gtp-export export MODEL writes one")
    if not path.is_dir() and path.suffix != ".onnx":
        raise LimitError(f"{path} is no ONNX graph: give an artifact directory, or a .onnx file")
    directory = path if path.is_dir() else path.parent
    manifest = read_manifest(directory) if path.is_dir() or (directory / FILE_NAME).exists() else None
    if path.is_dir():
        assert manifest is not None
        names = [name for name, entry in manifest.files.items() if name.endswith(".onnx") and not entry.unknown]
        if not names:
            raise LimitError(f"{path} holds no ONNX graph: export again")
        yield from ((name, _graph(path / name, manifest)) for name in names)
    else:
        yield path.name, _graph(path, manifest)


def _graph(path: Path, manifest: Manifest | None) -> ir.Model:
    """Return a graph in which every tensor has its shape and type; a file that a manifest lists is what that says."""
    entry = None if manifest is None else manifest.files.get(path.name)
    if manifest is not None and entry is not None:
        check_file(path, manifest)
    graph = read(path, None if entry is None else entry.external_data)
    values = [value for node in graph.graph for value in node.outputs if value.name]
    return graph if all(value.shape is not None and value.dtype for value in values) else infer_shapes(graph)


def read_graph(graph: ir.Model, target: str, name: str = "") -> Reading:
    """Read a graph whose tensors have shapes against a target; ``name`` is what the reading calls it."""
    rows = _rows(graph, target)
    return Reading(name, rows, None if not _counts(rows)[NO] else _better(graph, target, _counts(rows)))


def _rows(graph: ir.Model, target: str) -> tuple[Row, ...]:
    nodes: dict[tuple[str, str, str, str, str], list[str]] = {}
    for node in graph.graph.all_nodes():
        operator = node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}:{node.op_type}"
        key = (operator, *_verdict(node, operator, target))
        nodes.setdefault(key, []).append(node.name or str(node.outputs[0].name))
    rows = [Row(*key, tuple(names)) for key, names in nodes.items()]
    return tuple(sorted(rows, key=lambda row: (-VERDICTS.index(row.verdict), row.operator, row.reason)))


def _verdict(node: ir.Node, operator: str, target: str) -> tuple[str, str, str, str]:
    """Return a node's verdict, its reason, source and what avoids it: the worst of what the sources say."""
    facts = TARGETS[target]
    matching = [
        limit
        for limit in facts.limits
        if (not limit.operators or operator in limit.operators) and CONDITIONS[limit.when](node)
    ]
    said = [*map(_said, matching), *_unsaid(node, facts), _listed(operator, target, facts)]
    return max(said, key=lambda verdict: VERDICTS.index(verdict[0]))


def _said(limit: Limit) -> tuple[str, str, str, str]:
    return limit.verdict, limit.reason, limit.source, limit.instead


def _listed(operator: str, target: str, facts: Target) -> tuple[str, str, str, str]:
    """Return what the lists of a target say of an operator."""
    lists = {"onnx-tensorrt": TENSORRT_OPERATORS} if target == "tensorrt" else facts.lists
    source = next((name for name, operators in lists.items() if operator in operators), "")
    if source:
        return YES, "", source, ""
    if facts.complete:
        return NO, "not on the target's list", facts.complete, ""
    return UNKNOWN, "no source says whether it is taken", "", ""


def _unsaid(node: ir.Node, facts: Target) -> Iterator[tuple[str, str, str, str]]:
    """Yield an unknown for what a node has and no source speaks of: a dynamic axis, a type of floating point."""
    conditions = {limit.when for limit in facts.limits}
    if _is_dynamic(node) and "dynamic shape" not in conditions:
        yield UNKNOWN, "no source says whether it is taken with a dynamic axis", "", ""
    for name in sorted({_type(value) for value in _values(node)} & {*FLOATS} - {*facts.floats}):
        if {"DOUBLE": "float64"}.get(name, name.lower()) not in conditions:
            yield UNKNOWN, f"no source says whether it is taken in {name.lower()}", "", ""


def _counts(rows: tuple[Row, ...]) -> dict[str, int]:
    count = Counter[str]()
    for row in rows:
        count[row.verdict] += len(row.nodes)
    return {verdict: count[verdict] for verdict in VERDICTS}


def _better(graph: ir.Model, target: str, now: Mapping[str, int]) -> Way | None:
    """Return the form with the fewest nodes that are not taken, of those that have fewer than now."""
    ways = [Way(options, _counts(_rows(other, target))) for options, other in _forms(graph)]
    return min(
        (way for way in ways if way.counts[NO] < now[NO]),
        key=lambda way: (way.counts[NO], way.counts[UNKNOWN], len(way.options)),
        default=None,
    )


def _forms(graph: ir.Model) -> Iterator[tuple[tuple[str, ...], ir.Model]]:
    """Yield the other forms of a graph that can be written, with and without trace outputs, and their options."""
    if any(map(_is_dynamic, graph.graph)):
        return  # no export of ours
    graph = _renamed(graph)
    bare = _without_traces(graph)
    if bare is not None:
        yield ("--no-trace",), bare
    for form in FORMS[1:]:
        for options, base in [((), graph), *([] if bare is None else [(("--no-trace",), bare)])]:
            if all(fits(node, form) for node in base.graph):
                continue  # it has no node that this form would write otherwise
            with suppress(ValueError, StaticCheckError):  # a LimitError too: this graph has no such form
                yield ("--form", form, *options), to_form(base, form)


def _renamed(graph: ir.Model) -> ir.Model:
    """Return a graph in which no name is one that another form gives: it may be in such a form already."""
    copy = graph.clone()
    values = [*copy.graph.initializers.values(), *(value for node in copy.graph for value in node.outputs)]
    for index, value in enumerate(value for value in values if value.name and not value.is_graph_output()):
        value.name = f"value.{index}"
    return copy


def _without_traces(graph: ir.Model) -> ir.Model | None:
    """Return a graph without its trace outputs, and what only they need; None where it has none."""
    copy = graph.clone()
    answers = [value for value in copy.graph.outputs if value.name not in TRACES]
    if not answers or len(answers) == len(copy.graph.outputs):
        return None
    copy.graph.outputs[:] = answers
    return without_unused(copy)
