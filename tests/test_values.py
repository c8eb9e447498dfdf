"""Values of options: what is read, what is refused, and that nothing heavy is loaded to refuse it."""

from collections.abc import Callable
from typing import Any

import pytest
import typer
from artifacts import ROOT, python

from gtp_export import cli, values
from gtp_export.commands.bench import Budget, read_budget
from gtp_runtime.manifest import BatchRange


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20", 20), ("20ms", 0.02), ("300s", 300), ("5m", 300), ("5min", 300), ("2h", 7200), ("15 min", 900), (3.0, 3)],
)
def test_times(text: str | float, seconds: float) -> None:
    assert values.seconds(text) == pytest.approx(seconds)


def test_budgets_are_milliseconds_without_a_unit() -> None:
    assert [values.milliseconds(text) for text in ("20", "20ms", "0.02s", 20.0)] == pytest.approx([20] * 4)
    assert read_budget("20") == read_budget("20ms") == read_budget("p50:20") == Budget("p50", 20)
    assert read_budget("p99:0.02s") == Budget("p99", 20)


def test_macs() -> None:
    assert [values.macs(text) for text in ("3.4G", "3400M", "3.4e9", "3.4g")] == pytest.approx([3.4e9] * 4)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((values.seconds, text) for text in ("", "x", "2 days", "-1", "inf", "nan", "5mm")),
        *((values.milliseconds, text) for text in ("0", "0ms", "p50", "1e999")),
        (values.positive_seconds, "0s"),
        *((values.macs, text) for text in ("3.4GM", "2", "0.7", "few", "-3G", "")),
        (read_budget, "p98:20"),
        (values.num_prop, "4,,4"),
        *((values.batch, text) for text in ("16..1", "8..8", "0..4", "1..", "1..2..3", "x", "0", "-1", "1.5")),
        (values.image_size, "8x8x8"),
        (values.schedule, "steep"),
    ],
)
def test_refused(read: Callable[[Any], object], text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "deit"],
        ["export", "deit_s", "--mac", "3"],
        ["export", "deit_s", "--macs", "3.4GM"],
        ["export", "deit_s", "--macs", "2"],
        ["export", "deit_s", "--method", "evit"],
        ["export", "deit_s", "--preset", "own"],
        ["export", "deit_s", "--schedule", "steep"],
        ["export", "deit_s", "--precision", "fp9"],
        ["export", "deit_s", "--target", "ncnn"],
        ["export", "deit_s", "--threads", "x"],
        ["calibrate", "deit", "-o", "x.yaml", "--sparsity", "0.5"],
        ["export", "deit_s", "--keep", "70"],
        ["export", "deit_s", "--keep", "0.7", "--num-prop", "8"],
        ["export", "deit_s", "--sparsity", "1.5"],
        ["export", "deit_s", "--alpha", "-1"],
        ["export", "deit_s", "--num-neighbours", "0"],
        ["export", "deit_s", "--num-prop", "-8"],
        ["export", "deit_s", "--selection", "CLSAttn"],
        ["export", "deit_s", "--graph", "Near"],
        ["export", "deit_s", "--propagation", "Drop"],
        ["export", "timm:deit_smal_patch16_224"],
        ["export", "timm:"],
        ["export", "tim:deit_small_patch16_224"],
        ["calibrate", "deit_s", "-o", "x.yaml", "--sparsity", "2"],
        ["quantize", "build/digits", "--target", "onnxruntime", "--threads", "-1"],
        ["compare", "deit"],
        ["compare", "deit_s", "--seconds", "3 days"],
        ["tune", "deit", "-o", "x", "--max-drop", "1"],
        ["tune", "deit_s", "-o", "x", "--max-drop", "1", "--timeout", "5 moons"],
    ],
    ids=" ".join,
)
def test_what_is_mistyped_is_refused_before_torch_is_loaded(arguments: list[str]) -> None:
    code = f"from gtp_export.cli import main; sys.argv[1:] = {arguments}"
    ran = python(f"{code}\ntry: main()\nexcept SystemExit as stop: print(stop.code, 'torch' in sys.modules)")
    assert ran.out.split() == ["2", "False"], ran.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("export dei", {"deit_s", "deit_ti"}),
        ("export deit_s --preset ", {"paper", "measured"}),
        ("export deit_s --method ", {"gtp", "tome", "drop", "dense"}),
        ("export deit_s --precision int", {"int8"}),
        ("export deit_s --target ", {"onnxruntime", "openvino", "tensorrt"}),
        ("export deit_s --selection CLS", {"CLSAttnMax", "CLSAttnMean"}),
        ("bench x --backend onnx", {"onnxruntime"}),
    ],
)
def test_a_shell_completes_names(words: str, expected: set[str]) -> None:
    line, _, last = words.rpartition(" ")
    name, *typed = line.split()
    command = cli.command(name)
    context = command.make_context(
        name, [*typed, *(["x"] if typed and typed[-1].startswith("-") else [])], resilient_parsing=True
    )
    option = typed[-1] if typed and typed[-1].startswith("-") else ""
    part = next(part for part in command.params if (option in part.opts if option else part.name == "model"))
    assert {item.value for item in part.shell_complete(context, last)} >= expected


@pytest.mark.parametrize("name", cli.ENTRIES)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    command, *arguments = cli.ENTRIES[name].example.split()
    assert command == name
    assert cli.command(name).make_context(name, arguments) is not None
    assert (ROOT / "gtp_export" / "commands" / f"{cli.ENTRIES[name].module}.py").exists()


def test_a_batch_is_a_number_or_a_range() -> None:
    assert values.batch("8") == values.batch(8) == 8
    assert values.batch("1..16") == BatchRange(1, 16) and str(BatchRange(1, 16)) == "1..16"
