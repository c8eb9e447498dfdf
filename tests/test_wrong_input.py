"""What users get wrong ends in one clear line, the right exit code, and nothing half-written."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from artifacts import DIGITS, ROOT, SEVEN, TINY, Command, Ran, python

from gtp_models import hub

Wrong = tuple[tuple[str, ...], int, str]


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """One line says what is wrong; no file, hidden or not, is left in the folder where the command ran."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 1 or "╭─ Error" in ran.err, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.error
    assert {path.name for path in Path().iterdir()} <= {"tiny.yaml", "given", "build"}
    assert not list(Path().glob("build/*")), "pathlib's * finds hidden files too"


REFUSED: dict[str, Wrong] = {
    "unknown model": (("deit",), 2, "no recipe is called 'deit': did you mean deit_b or deit_s or deit3_b?"),
    "unknown timm model": (("timm:vit_tini_patch16_224",), 2, "did you mean vit_tiny_patch16_224"),
    "no recipe file": (("missing.yaml",), 2, "cannot read the recipe missing.yaml: No such file"),
    "missing weights": (("tiny.yaml", "--weights", "none.pth"), 4, "no weights file none.pth: give one that exists"),
    "too many tokens": (("tiny.yaml", "--num-prop", "9"), 2, "with one number for all layers at most 7 fits"),
    "short schedule": (("tiny.yaml", "--num-prop", "1,2,3"), 2, "num_prop has 3 entries, but the model has 2 layers"),
    "no number": (("tiny.yaml", "--num-prop", "few"), 2, "--num-prop"),
    "hole in a schedule": (("tiny.yaml", "--num-prop", "4,,4"), 2, "--num-prop"),
    "nothing stays": (("tiny.yaml", "--sparsity", "0"), 2, "--sparsity"),
    "more than all": (("tiny.yaml", "--sparsity", "1.5"), 2, "--sparsity"),
    "no alpha": (("tiny.yaml", "--alpha", "nan"), 2, "--alpha"),
    "unknown selection": (("tiny.yaml", "--selection", "Best"), 2, "selection='Best' is unknown: choose one of"),
    "unknown method": (
        ("tiny.yaml", "--method", "evit"),
        2,
        "method='evit' is unknown: choose one of dense, drop, gtp",
    ),
    "no method any more": (("tiny.yaml", "--method", "prune"), 2, "method='prune' is unknown: choose one of dense"),
    "not of this method": (
        ("tiny.yaml", "--method", "drop", "--alpha", "0.2"),
        2,
        "drop takes no alpha: it takes num_pr",
    ),
    "dense reduces nothing": (("tiny.yaml", "--method", "dense", "--keep", "0.7"), 2, "dense takes no num_prop, keep"),
    "two amounts": (("tiny.yaml", "--num-prop", "3", "--keep", "0.7"), 2, "num_prop and keep are alternatives"),
    "no share": (("tiny.yaml", "--keep", "70"), 2, "--keep"),
    "a share as MACs": (("tiny.yaml", "--macs", "0.7"), 2, "--macs"),
    "no MACs": (("tiny.yaml", "--macs", "few"), 2, "--macs"),
    "out of reach": (("tiny.yaml", "--macs", "2000"), 2, "no even schedule comes near"),
    "unknown schedule": (("tiny.yaml", "--schedule", "steep"), 2, "no schedule is called 'steep': choose one of even"),
    "old opset": (("tiny.yaml", "--opset", "9"), 2, "opset 9 is not supported: use 18 to 23"),
    "unknown target": (("tiny.yaml", "--target", "ncnn"), 2, "tensorrt, onnxruntime, openvino"),
    "no batch": (("tiny.yaml", "--batch", "0"), 2, "'--batch'"),
    "three sides": (
        ("tiny.yaml", "--img-size", "8x8x8"),
        2,
        "--img-size",
    ),
    "no data": (("tiny.yaml", "--data", "nowhere"), 1, "no folder nowhere: give a folder of images"),
    "too large a TopK": (
        ("deit_s", "--sparsity", "0.5", "--target", "tensorrt"),
        2,
        "TensorRT's TopK takes at most 3840: use sparsity=1.0 (or at least 0.902), --threshold calibrated, or --target",
    ),
}


@pytest.fixture
def export(command: Command) -> Command:
    """``gtp-export export`` with random weights, quietly, where tiny.yaml is a recipe."""
    Path("tiny.yaml").write_text(
        json.dumps({"timm": TINY.timm, "gtp": TINY.gtp, "model_args": TINY.model_args}), encoding="utf-8"
    )
    return lambda *arguments: command("export", "--weights", "random", "-q", *arguments)


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_export_refuses(
    export: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    def trace(*arguments: object) -> None:
        raise AssertionError("traced before the settings were checked")

    monkeypatch.setattr("gtp_exporters.artifacts.to_onnx", trace)
    assert_refused(export(*arguments), code, words)


def test_weights_of_another_model(export: Command) -> None:
    ran = export("tiny.yaml", "--weights", DIGITS / "weights.safetensors")
    assert_refused(ran, 2, "weights.safetensors", "96 channels and 6 layers", "24 channels and 2 layers")


def test_an_image_of_the_data_that_cannot_be_read(export: Command) -> None:
    Path("given/1").mkdir(parents=True)
    Path("given/1/broken.png").write_bytes(SEVEN.read_bytes()[:100])
    assert_refused(export("tiny.yaml", "--data", "given"), 1, "cannot read the image given/1/broken.png")


def test_an_output_that_is_something_else(export: Command) -> None:
    Path("given").mkdir()
    Path("given/notes.txt").write_text("mine", encoding="utf-8")
    assert_refused(export("tiny.yaml", "-o", "given"), 1, "holds other files, which gtp-export", ": notes.txt;")
    assert_refused(export("tiny.yaml", "-o", "given/notes.txt"), 1, "is a file: -o names the artifact directory")
    assert_refused(export("tiny.yaml", "-o", "given/notes.txt/deep"), 1, "cannot write")
    assert [path.name for path in Path("given").iterdir()] == ["notes.txt"]
    assert Path("given/notes.txt").read_text("utf-8") == "mine"


def test_a_full_disk(export: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def save(proto: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gtp_exporters.graph.describe.save", save)
    ran = export("tiny.yaml", "--no-simplify", "-o", tmp_path / "disk" / "out")
    assert_refused(ran, 1, "no space left to write", "nothing was left behind")
    assert not (tmp_path / "disk").exists()


def test_an_unreachable_hub(export: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "is_cached", lambda config: False)
    ran = export("deit_ti", "--weights", "pretrained")
    assert_refused(ran, 4, "the weights of deit_tiny_patch16_224.fb_in1k cannot be fetched", "give --weights FILE")


def test_a_missing_extra() -> None:
    run = "from gtp_export.cli import main; sys.argv[1:] = {}; main()"
    ran = python("sys.modules |= {'torch': None, 'onnx_ir': None}; " + run.format(["export", "digits", "-q"]))
    assert (ran.code, ran.err) == (4, "error: torch is not installed: pip install 'gtp-export[export]'\n")
    ran = python("sys.modules['yaml'] = None; " + run.format(["models"]))
    assert (ran.code, ran.err) == (4, "error: yaml is not installed: pip install 'gtp-export[export]'\n")


def test_a_missing_backend(digits: Path) -> None:
    run = f"from gtp_export.cli import main; sys.argv[1:] = ['validate', '-q', {str(digits)!r}]; main()"
    ran = python(f"sys.modules['onnxruntime'] = None; {run}")
    assert (ran.code, ran.err) == (4, "error: onnxruntime is not installed: pip install 'gtp-export[onnxruntime]'\n")


@pytest.mark.parametrize("name", ["validate", "bench", "predict", "inspect"])
def test_no_export_there(command: Command, digits: Path, name: str) -> None:
    images = [SEVEN] if name == "predict" else []
    Path("given").mkdir()
    shutil.copy(digits / "model.onnx", "given")
    assert_refused(command(name, "given/model.onnx", *images), 1, "no manifest given/model.json: a model needs the")
    assert_refused(command(name, "nowhere/model.onnx", *images), 1, "no file nowhere/model.onnx")


def test_an_image_that_cannot_be_read(command: Command, digits: Path) -> None:
    assert_refused(command("predict", digits, ROOT / "pyproject.toml"), 1, "cannot identify image file")
    assert_refused(command("predict", digits, "missing.png"), 1, "no image missing.png")
    assert_refused(command("validate", digits, "--data", "missing", "-q"), 1, "no folder missing")


def test_a_file_altered_after_the_export(command: Command, digits_copy: Path) -> None:
    (digits_copy / "model.onnx").write_bytes(b"other")
    for name in ("validate", "bench"):
        assert_refused(command(name, digits_copy, "-q"), 1, "is not the file that its manifest describes")


def test_unknown_commands_and_options(command: Command, digits: Path) -> None:
    assert_refused(command("exprot"), 2, "No such command 'exprot'")
    assert_refused(command("bench"), 2, "Missing argument")
    assert_refused(command("bench", digits, "--provider", "npu"), 2, "'--provider'")
