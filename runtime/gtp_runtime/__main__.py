"""``python -m gtp_runtime``: what a device without the command line of gtp-export needs, one function a command."""

import argparse
import functools
import json
import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gtp_runtime import Accuracy, Model, benchmark, evaluate, load
from gtp_runtime import install as install_export
from gtp_runtime import rollback as go_back
from gtp_runtime.accuracy import metric_lines
from gtp_runtime.backends import BACKENDS, find_backend
from gtp_runtime.backends.spec import Pairs, read_pairs
from gtp_runtime.errors import (
    BUDGET_MISSED,
    DONE,
    FAILED,
    GATE_FAILED,
    BackendMissingError,
    GTPRuntimeError,
    ImageError,
    InputError,
    system_error,
)
from gtp_runtime.images.class_folders import ORDERS, folder_words
from gtp_runtime.latency import measured_by, record_latency
from gtp_runtime.loading import file_for, load_twin
from gtp_runtime.manifest import find_graph
from gtp_runtime.messages import JsonHandler, one_line, percent, visible, write_line
from gtp_runtime.parity import details, headline
from gtp_runtime.question import ask, images_for

DESCRIPTION = (
    "Run files that gtp-export wrote. Exit codes: 0 done; 1 failed; 2 usage; 3 parity failed; 4 missing; 5 too slow."
)
NOT_STORED = "note: the result was not stored in the manifest, which is signed or cannot be written"
TRUTH = ("classes_from", "masks", "depths")  # what is right, beside the classes of images
MEASURED = 1  # threads where latency is measured, as ``backends.spec.THREADS`` says
LOG = logging.getLogger("gtp_runtime")
TRUST: tuple[tuple[str, Any, str], ...] = (  # arguments of ``load`` that are no backend's
    ("trusted_key", str, "Public key (.pub) that must have signed the directory; nothing is loaded otherwise."),
    ("min_version", int, "With --trusted-key: the lowest version of a signed export that is accepted."),
    (
        "remember",
        str,
        "With --trusted-key: file that stores the highest accepted version; older ones are refused.",
    ),
)


def validate(model: Model, given: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Prove parity with the eager model on the images of the reference; --data adds accuracy beside the dense file."""
    report = model.validate()
    stored = model.record("parity", report.to_dict() | measured_by(model))
    if not given.json:
        origin = str(model.manifest.reference.get("images", "unknown"))
        show(f"tested {model}", *_placed(model), headline(report, origin), *details(report))
        show(*(f"  gate: {problem}" for problem in report.problems))
    accuracy = None if given.data is None else _accuracy(model, given)
    if not stored:
        note(NOT_STORED)
    document = report.to_dict() | model.answered() | {"accuracy": accuracy and accuracy.to_dict()} | _placement(model)
    return document, DONE if report.ok else GATE_FAILED


def _accuracy(model: Model, given: argparse.Namespace) -> Accuracy:
    truth = {name: getattr(given, name) for name in TRUTH}
    question, _ = ask(model.manifest, **truth)
    images = images_for(given.data, model.manifest, question, given.labels, given.class_order)
    with ExitStack() as stack:
        accuracy = evaluate(model, _dense_of(model, given, stack), images, **truth)
    model.record("accuracy", accuracy.to_dict() | {"data": one_line(images.folder.resolve().name)} | measured_by(model))
    if not given.json:
        top1 = accuracy.quality or "top-1"
        shares = {top1: accuracy.top1, f"dense {top1}": accuracy.dense_top1, "agrees with dense": accuracy.agreement}
        known = [f"{name} {percent(share, 2)}" for name, share in shares.items() if share is not None]
        show(f"accuracy on {accuracy.images} images of {given.data}: {', '.join([*known, *metric_lines(accuracy)])}")
        show(*filter(None, [folder_words(accuracy.class_order, accuracy.class_folders)]))
    if accuracy.unreadable:
        note(f"note: {accuracy.unreadable} images cannot be read and were left out: {accuracy.unreadable_images[0]} …")
    return accuracy


def _dense_of(model: Model, given: argparse.Namespace, stack: ExitStack) -> Model | None:
    """Open the dense baseline; None, with a note, where there is none that runs here."""
    trust = {name: getattr(given, name) for name, _, _ in TRUST if getattr(given, name) is not None}
    try:
        dense = None if model.entry.role == "dense" else load_twin(model, **trust)
    except BackendMissingError as error:
        note(f"note: not compared with the dense baseline: {error}")
        return None
    return dense and stack.enter_context(dense)


def bench(model: Model, given: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Measure latency beside the dense baseline, in turn in one process; a missed budget is exit code 5."""
    with ExitStack() as stack:
        dense = _dense_of(model, given, stack)
        models = [model] if dense is None else [dense, model]
        results = benchmark(models, given.seconds)
        stored = record_latency(models, results)
    if not given.json:
        for timed, result in zip(models, results, strict=True):
            times = f"p50 {result.p50_ms:.2f} ms, p90 {result.p90_ms:.2f}, p99 {result.p99_ms:.2f}"
            show(f"{timed}: {times}, ratio {result.ratio:.3f}", *_placed(timed))
        energy = [f"{result.file}: {result.joules:.4g} J per image" for result in results if result.joules is not None]
        conditions = results[0].conditions
        show(*energy, *(conditions.lines if conditions else []))
    if not stored:
        note(NOT_STORED)
    missed = given.budget_ms is not None and results[-1].p50_ms > given.budget_ms
    if missed:
        note(f"error: p50 {results[-1].p50_ms:.2f} ms is over the budget of {given.budget_ms:g} ms")
    pairs = zip(models, results, strict=True)
    return {"files": [{**result.to_dict(), **timed.answered(), **_placement(timed)} for timed, result in pairs]}, (
        BUDGET_MISSED if missed else DONE
    )


def _placement(model: Model) -> dict[str, Any]:
    placement = model.placement()
    return {} if placement is None else {"placement": placement.to_dict()}


def _placed(model: Model) -> list[str]:
    placement = model.placement()
    return [] if placement is None else [f"  {placement}"]


def selftest(model: Model, given: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Check at start-up that the file answers as its reference says; stores nothing."""
    report = model.selftest()
    origin = str(model.manifest.reference.get("images", "unknown"))
    if not given.json:
        show(f"tested {model}", headline(report, origin))
    return report.to_dict() | model.answered(), DONE


def predict(model: Model, given: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Classify images; one that cannot be read does not lose the others (exit code 1)."""
    documents: list[dict[str, Any]] = []
    options = {"exif": given.exif, "allow_random": given.allow_random}
    for image, answer in model.predict_each(given.images, given.topk, **options, workers=1):
        if isinstance(answer, ImageError):
            note(f"error: {answer}")
            documents.append({"image": str(image), "error": str(answer)})
            continue
        if all("error" in entry for entry in documents):
            note(f"note: answered by {model}")
        documents.append({"image": str(image), "predictions": [asdict(entry) for entry in answer]})
        if not given.json:
            show(str(image), *(f"  {entry.label}  {percent(entry.probability)}" for entry in answer))
    return {**model.answered(), "images": documents}, FAILED if any("error" in entry for entry in documents) else DONE


def install(given: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Put an export in place of another, in one step, after it was proven here; or go back to the last good one."""
    act = go_back if given.rollback else install_export
    demands: dict[str, Any] = {"budget_ms": given.budget_ms, "seconds": given.seconds}
    done = act(*given.paths, **demands | _load_arguments(given))
    if not given.json:
        kept = f"; kept {done.previous.name}" if done.previous else ""
        took = f"{done.proof.file}, p50 {done.proof.latency.p50_ms:.2f} ms"
        show(f"{done.target} is {done.directory.name} now: {took}{kept}")
    return done.to_dict(), DONE


def show(*lines: str) -> None:
    """Write lines to stdout."""
    for line in lines:
        print(visible(line, allowed=""))


def note(text: str) -> None:
    """Write what is not part of the result to stderr."""
    level, _, message = text.partition(": ")
    if any(isinstance(handler, JsonHandler) for handler in LOG.handlers):
        write_line({"note": "info"}.get(level, level), LOG.name, message)
    else:
        print(visible(text, allowed=""), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m gtp_runtime", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = _add(commands, validate)
    added.add_argument("--data", type=Path, help="a folder of images, one sub-folder per class")
    added.add_argument("--labels", type=Path, help="with --data: a file that says the class of each image")
    added.add_argument(
        "--class-order",
        choices=ORDERS,
        help="with --data: the order of class folders in training (default: the manifest's, else timm)",
    )
    added.add_argument("--classes-from", type=Path, help="with --data: text embeddings (.npz) that make classes")
    added.add_argument("--masks", type=Path, help="with --data: a folder of PNG masks of class ids; mIoU")
    added.add_argument("--depths", type=Path, help="with --data: a folder of depths, .npy or 16-bit PNG; AbsRel")
    added = _add(commands, bench)
    added.add_argument("--seconds", type=float, default=3.0, help="seconds of timing for both files (default: 3)")
    added.add_argument("--budget-ms", type=float, help="most milliseconds of a run (p50)")
    _add(commands, selftest)
    added = _add(commands, predict)
    added.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    added.add_argument("--topk", type=int, default=5, help="number of classes, best first")
    added.add_argument("--exif", action=argparse.BooleanOptionalAction, help="rotate images by their EXIF orientation")
    added.add_argument("--allow-random", action="store_true", help="predict even if the weights are random")
    added = _common(commands, install)
    added.set_defaults(run=install)
    added.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DIR TARGET, or --rollback TARGET")
    added.add_argument("--rollback", action="store_true", help="go back to the last good export")
    added.add_argument("--budget-ms", type=float, help="most milliseconds of a run (p50)")
    added.add_argument("--seconds", type=float, default=1.0, help="seconds of timing")
    return parser


def _add(commands: Any, run: Callable[..., Any]) -> argparse.ArgumentParser:
    added = _common(commands, run)
    added.set_defaults(run=functools.partial(_loaded, run))
    added.add_argument("path", type=Path, help="a .onnx or .engine file, or an artifact directory")
    return added


def _common(commands: Any, run: Callable[..., Any]) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
    added.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    added.add_argument("-v", "--verbose", action="store_true", help="show log messages: what runs the file, and why")
    added.add_argument("--log-json", action="store_true", help="write log messages, notes and errors as lines of JSON")
    _add_load_options(added)
    return added


def _loaded(run: Callable[..., Any], given: argparse.Namespace) -> Any:
    path, arguments = given.path, _load_arguments(given)
    if run is bench:  # times one file, whatever else of a directory could run
        path = file_for(find_graph(path, arguments.pop("precision", None)), path, given.backend)
        if "threads" in find_backend(path, given.backend).option_names:
            arguments.setdefault("threads", MEASURED)
    with load(path, **arguments) as model:
        if model.fallback:
            note(f"warning: {model} answers: {model.fallback}")
        return run(model, given)


def _add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each argument of ``load``; one that is not given is None."""
    specs = BACKENDS
    parser.add_argument("--backend", choices=("auto", *specs), default="auto", help="what runs the file")
    parser.add_argument("--precision", help="of a directory, the graphs in this precision (default: model.onnx)")
    for name, help_ in _options().items():
        parser.add_argument(_flag(name), help=help_.replace("%", "%%"), **_kind(name))
    for name, kind, help_ in TRUST:
        parser.add_argument(_flag(name), type=kind, help=help_)


def _load_arguments(values: argparse.Namespace) -> dict[str, Any]:
    """Return the options as arguments of ``load``, which refuses what a backend does not take."""
    names = ("backend", "precision", *_options(), *(name for name, _, _ in TRUST))
    arguments = {name: getattr(values, name) for name in names}
    return {name: value for name, value in arguments.items() if value is not None}


def _options() -> dict[str, str]:
    """Return the options that backends declare, by name, with their help."""
    return {
        entry.name: f"{entry.metadata['help']} (backends that take it: {', '.join(_takers(entry.name))})"
        for spec in BACKENDS.values()
        for entry in fields(spec.options)
    }


def _takers(name: str) -> list[str]:
    return [spec.name for spec in BACKENDS.values() if name in spec.option_names]


def _kind(name: str) -> dict[str, Any]:
    """Return argparse's words for the type of an option: a whole number, yes or no, or the choices of all takers."""
    kinds = [get_type_hints(BACKENDS[taker].options)[name] for taker in _takers(name)]
    if kinds[0] is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kinds[0]) is Literal:
        return {"choices": tuple(dict.fromkeys(choice for kind in kinds for choice in get_args(kind)))}
    return {"type": {str: str, Pairs: _pairs}.get(kinds[0], int)}


def _pairs(text: str) -> dict[str, str]:
    try:
        return read_pairs(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _show_logs(given: argparse.Namespace) -> None:
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    LOG.handlers = [JsonHandler() if given.log_json else shown if given.verbose else logging.NullHandler()]
    LOG.setLevel(logging.INFO)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; an error is one line on stderr."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if getattr(given, "data", None) is None:
        lonely = [name for name in ("labels", "class_order", *TRUTH) if getattr(given, name, None) is not None]
        if lonely:
            parser.error(f"{_flag(lonely[0])} needs --data: it says what is right for its images")
    if given.run is install and len(given.paths) != 2 - given.rollback:
        parser.error("give DIR and TARGET, or --rollback and TARGET")
    _show_logs(given)
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    try:
        document, code = given.run(given)
    except GTPRuntimeError as error:
        note(f"error: {error}")
        return error.exit_code
    except OSError as error:
        note(f"error: {system_error(error)}")
        return FAILED
    except KeyboardInterrupt:
        note("error: stopped")
        return FAILED
    if given.json:
        print(json.dumps(document, indent=1))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
