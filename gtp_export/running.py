"""How files run: ``--backend``, ``--precision``, the options of backends, what is trusted, and ``--ray``."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.text import Text

from gtp_export import console
from gtp_export.options import one_of, option, with_options
from gtp_runtime.backends import BACKENDS, find_backend
from gtp_runtime.backends.onnxruntime import PROVIDERS, short_name
from gtp_runtime.backends.openvino import DEVICES, MODES, device_name
from gtp_runtime.backends.openvino import Compute as Computes
from gtp_runtime.backends.spec import THREADS as THREADS_OPTION
from gtp_runtime.backends.spec import read_pairs
from gtp_runtime.errors import BackendMissingError, InputError
from gtp_runtime.messages import one_line
from gtp_runtime.precisions import PRECISIONS

if TYPE_CHECKING:
    from gtp_runtime import Model
    from gtp_runtime.backends import BackendSpec
    from gtp_runtime.fleet import Fleet

log = logging.getLogger(__name__)
PANEL = "How files run"
TRUST_PANEL = "What is trusted"
NOT_KEPT = (
    "note: the result was not stored in the manifest: it is signed or cannot be written, or the file was replaced "
    "during the run (-v shows which)"
)
THREADS = f"{THREADS_OPTION['help']}. For executorch, litert, mnn, onnxruntime, openvino."
MEASURED = 1  # threads where latency is measured, as ``THREADS`` says


def _option(text: str, panel: str = PANEL, **given: Any) -> Any:
    return option(text, rich_help_panel=panel, **given)


def _read(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a parser of an option's value, whose ``InputError`` is a usage error that names the option."""

    def parse(value: Any) -> Any:
        try:
            return read(value)
        except InputError as error:
            raise typer.BadParameter(str(error)) from error

    return parse


Backend = Annotated[
    str,
    _option(
        "What runs the file; auto decides by its extension, and tries a directory's engine first (default: auto).",
        **one_of(("auto", *BACKENDS)),
    ),
]
Precision = Annotated[
    str | None,
    _option(
        "For a directory, the precision of its graphs: fp32, int8, … (default: model.onnx).", names=lambda: PRECISIONS
    ),
]
Threads = Annotated[int | None, _option(THREADS, min=0)]
Provider = Annotated[
    str | None,
    _option(
        "Execution provider: cuda, openvino, qnn, … or ONNX Runtime's own name (doctor lists what is here). For "
        "onnxruntime (default: cpu).",
        parser=_read(short_name),
        names=lambda: PROVIDERS,
        metavar="NAME",
    ),
]
ProviderOptions = Annotated[
    Any,
    _option(
        "Options of the provider, as ONNX Runtime documents them: device_id=0,… For onnxruntime.",
        parser=_read(lambda value: value if isinstance(value, dict) else read_pairs(value)),
        metavar="NAME=VALUE,…",
    ),
]
Device = Annotated[
    str | None,
    _option(
        "Device: CPU, GPU, NPU, GPU.1, AUTO, AUTO:GPU,CPU, MULTI:GPU,CPU or HETERO:NPU,CPU (doctor lists "
        "what is here). For openvino (default: CPU).",
        parser=_read(device_name),
        names=lambda: (*DEVICES, *MODES),
        metavar="DEVICE",
    ),
]
Compute = Annotated[
    str | None, _option("Precision to compute in. For openvino (default: fp32).", **one_of(get_args(Computes)))
]
HostCode = Annotated[
    bool | None,
    _option("Let an engine run its own code on the CPU; only for engines that you built. For tensorrt (default: no)."),
]
KeepKernels = Annotated[
    bool | None,
    _option("Keep TensorRT-RTX's kernels beside the engine; not with --trusted-key. For tensorrt (default: yes)."),
]
TrustedKey = Annotated[
    Path | None,
    _option("Public key (.pub) that must have signed the directory; nothing is loaded otherwise.", TRUST_PANEL),
]
MinVersion = Annotated[
    int | None, _option("With --trusted-key: the lowest version of a signed export that is accepted.", TRUST_PANEL)
]
Remember = Annotated[
    Path | None,
    _option("With --trusted-key: file that stores the highest accepted version; older ones are refused.", TRUST_PANEL),
]


@dataclass(frozen=True)
class RunOptions:
    """How the user wants files to run.

    Attributes:
        backend: its name, or "auto".
        given: the options that the user gave.
        defaults: the command's own, for backends that have these options.
        precision: of a directory's graphs, the one that is meant; None is model.onnx.
    """

    backend: str
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    precision: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``gtp_runtime.load`` for a directory, as the user gave them."""
        return {"backend": self.backend, "precision": self.precision, **self.given}

    def load(self, path: Path) -> "Model":
        """Load a file, or what suits this device of a directory. Raises as ``gtp_runtime.load`` does."""
        from gtp_runtime import load

        model = load(path, self.backend, precision=self.precision, **self.options(self.file(path)))
        if model.fallback:
            console.err.print(f"warning: {model} answers: {model.fallback}", style="yellow", markup=False)
        return model

    def file(self, path: Path) -> Path:
        """Return the file of a path: of a directory, the graph in the given precision, or its engine for a backend that
        takes no graphs. Raises as ``load`` does.
        """
        from gtp_runtime.loading import file_for
        from gtp_runtime.manifest import find_graph

        return file_for(find_graph(path, self.precision), path, self.backend) if path.exists() else path

    def load_file(self, file: Path) -> "Model":
        """Load a file. Raises as ``gtp_runtime.load`` does."""
        from gtp_runtime import load

        return load(file, self.backend, **self.options(file))

    def load_twin(self, model: "Model") -> "Model | None":
        """Load the dense baseline of a file; None if there is none, or, with a note, if nothing here can run it."""
        from gtp_runtime.loading import load_twin

        names = ("trusted_key", "min_version", "remember")
        try:
            return load_twin(model, **{name: self.given[name] for name in names if name in self.given})
        except BackendMissingError as error:
            console.note(f"note: not compared with the dense baseline: {error}")
            return None

    def options(self, file: Path) -> dict[str, Any]:
        """Return the options that the backend of a file gets: those given, and the command's own that it takes."""
        return self.options_of(file) if file.exists() else dict(self.given)  # for load to report

    def options_of(self, file: Path) -> dict[str, Any]:
        """Return the same of a file that need not exist. Raises as ``gtp_runtime.load`` does of backends."""
        names = self.spec(file).option_names
        return {**{name: value for name, value in self.defaults.items() if name in names}, **self.given}

    def spec(self, file: Path) -> "BackendSpec":
        """Return the backend that runs a file, which need not exist. Raises as ``gtp_runtime.load`` does."""
        return find_backend(file, self.backend)


def takes_run_options(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that runs files the options below; it gets its ``RunOptions`` as the argument ``running``.

    Args:
        defaults: options whose default differs from the backend's in this command.
    """

    def run_options(
        backend: Backend = "auto",
        precision: Precision = None,
        threads: Threads = None,
        provider: Provider = None,
        provider_options: ProviderOptions = None,
        device: Device = None,
        compute: Compute = None,
        host_code: HostCode = None,
        keep_kernels: KeepKernels = None,
        trusted_key: TrustedKey = None,
        min_version: MinVersion = None,
        remember: Remember = None,
    ) -> RunOptions:
        given = given_options(
            threads=threads,
            provider=provider,
            provider_options=provider_options,
            device=device,
            compute=compute,
            host_code=host_code,
            keep_kernels=keep_kernels,
            trusted_key=trusted_key,
            min_version=min_version,
            remember=remember,
        )
        return RunOptions(backend, given, defaults, precision)

    return with_options(run_options, "running")


def given_options(**values: Any) -> dict[str, Any]:
    """Return the options that were given: a backend refuses those that it does not take."""
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def joined_fleet(address: str | None, images: Path | None, device: bool = False) -> "Iterator[Fleet | None]":
    """Yield the nodes of a cluster; None without an address.

    Args:
        address, images: as ``gtp_runtime.fleet.connect`` takes them, and raises.
        device: whether latency will be measured; without a node for it, ``FleetError`` is raised at once.
    """
    if address is None:
        yield None
        return
    from gtp_runtime.fleet import connect

    with redirect_stdout(_RayLog()), connect(address, images, console.note) as fleet:
        if device:
            fleet.check_device()
        yield fleet


def fleet_scoring(fleet: "Fleet | None") -> dict[str, Any]:
    """Return the arguments of ``gtp_runtime.evaluate`` that let the nodes score the images."""
    if fleet is None:
        return {}
    from gtp_runtime.fleet import jobs

    return {"scoring": jobs.fleet_scoring(fleet)}


def fleet_document(fleet: "Fleet | None") -> dict[str, Any]:
    """Return what a JSON document says of the nodes."""
    return {} if fleet is None else {"fleet": asdict(fleet.report())}


def show_fleet(fleet: "Fleet | None") -> None:
    """Print what the nodes did, and note which did nothing and why."""
    if fleet is None:
        return
    report = fleet.report()
    counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
    console.out.print(f"parts done by each node: {counts or 'none'}")
    if report.timed:
        console.out.print(f"latency measured on: {', '.join(report.timed)}")
    if report.lost:
        console.note(f"note: lost during the run: {', '.join(report.lost)}; what they had was done again")
    for name, why in report.left_out.items():
        console.note(f"note: node {name} was left out: {why}")


def placement_document(model: "Model") -> dict[str, Any]:
    """Return what a JSON document says of where operators run: nothing where one device alone could run them."""
    placement = model.placement()
    return {} if placement is None else {"placement": placement.to_dict()}


def show_placements(models: "Iterable[Model]") -> None:
    """Print for each file how many operators run where, and which fell back, unless one device alone could run them."""
    for model in models:
        placement = model.placement()
        if placement is not None:
            console.out.print(f"{model.path.name} on {model.device}; {placement}", markup=False)


class _RayLog(io.TextIOBase):
    """Logs what Ray says of nodes: it prints that on stdout, where a command may write a JSON document."""

    def write(self, text: str) -> int:
        """Log a text."""
        if text.strip():
            log.info("Ray: %s", one_line(Text.from_ansi(text).plain))
        return len(text)
