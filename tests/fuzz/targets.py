"""What is fuzzed: a target takes bytes as a file from elsewhere, and may raise nothing but our typed errors.

A target has seeds (whole files that it accepts), words that its format is made of, and a strategy of hypothesis that
makes structured inputs. To add one, write a function that takes (content, folder) and list it in ``TARGETS``.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "gtp_models" / "digits"
RECIPES = ROOT / "models" / "gtp_models" / "recipes"


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        run: raises nothing but what ``expected`` returns.
        seeds: returns whole inputs.
        words: bytes that inputs are made of.
        structured: a strategy that makes inputs.
    """

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    structured: st.SearchStrategy[bytes] = field(default_factory=lambda: st.binary(max_size=4096))


@cache
def expected() -> tuple[type[Exception], ...]:
    """The errors that are ours."""
    from gtp_export.exit_codes import KNOWN

    return KNOWN


def attempt(target: Target, content: bytes, folder: Path) -> None:
    """Run an input; our own errors are what should happen, and are one line."""
    text = "none"
    try:
        target.run(content, folder)
    except expected() as error:
        text = str(error)
    assert text and len(text) < 2000, f"an error of {len(text)} characters"
    assert "\n" not in text and "\x1b" not in text, repr(text)


def _file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# Scalars that readers stumble over, and documents of them.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["../x", "/etc/passwd", "[red]", "\x1b[2J", "fp32", "model.onnx", "gtp", 10**400, 10**9, -1]),
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@st.composite
def edits(draw: Any, seed: Callable[[], dict[str, Any]], most: int = 3) -> bytes:
    """A document with some of its entries replaced, removed or added."""
    values = json.loads(json.dumps(seed()))
    for _ in range(draw(st.integers(1, most))):
        holder = values
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
                holder = holder[key]
                continue
            if draw(st.integers(0, 9)):
                holder[key] = draw(DOCUMENTS)
            else:
                del holder[key]
            break
    return json.dumps(values).encode()


def manifest_seed() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((ROOT / "tests" / "fuzz" / "manifest.json").read_text("utf-8"))
    return values


def read_manifest(content: bytes, folder: Path) -> None:
    from gtp_export.commands.inspect import inspect
    from gtp_runtime import read_manifest as read
    from gtp_runtime.runnable import check_runnable

    _file(folder, "model.json", content)
    manifest = read(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        inspect(folder)
        inspect(folder, json=True)
    for name in manifest.files:
        with contextlib.suppress(*expected()):
            check_runnable(folder / name, manifest)
    manifest.preprocessing.pixels(np.zeros((7, 5, 3), np.uint8))


def read_pack(content: bytes, folder: Path) -> None:
    from gtp_runtime.reference import read_reference

    read_reference(_file(folder, "reference.npz", content))


@st.composite
def packs(draw: Any) -> bytes:
    """An archive of arrays with names, shapes and types of their own."""
    stream = io.BytesIO()
    names = st.sampled_from(
        [
            "images",
            "logits",
            "features",
            "labels",
            "dense_logits",
            "layer0/gap",
            "layer0/kept",
            "layer0/propagated",
            "layer0/received_by",
            "layer1/gap",
            "x",
        ]
    )
    kinds = st.sampled_from(["u1", "f4", "f8", "i4", "i8", "f2", "b1", "c8", "S3", "U2", "V4", "M8[s]"])
    with zipfile.ZipFile(stream, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for name in draw(st.lists(names, max_size=8, unique=True)):
            shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=5)))
            inner = io.BytesIO()
            np.save(inner, np.full(shape, draw(st.sampled_from([0, 1])), draw(kinds)), allow_pickle=False)
            content = inner.getvalue()
            archive.writestr(f"{name}.npy", content[: draw(st.sampled_from([None, 10, 64, len(content) - 1]))])
    return stream.getvalue()


def pack_seeds() -> list[bytes]:
    from gtp_runtime.reference import Reference, write_reference

    ids = [np.array([[0, 1], [2, 3]], np.int32)]
    pack = Reference(
        images=np.zeros((2, 4, 4, 3), np.uint8),
        answers=np.ones((2, 3), np.float32),
        dense_answers=np.ones((2, 3), np.float32),
        labels=np.array([0, 1]),
        kept=ids,
        propagated=ids,
        gap=[np.zeros(2, np.float32)],
        received_by=ids,
    )
    path = scratch() / "seed.npz"
    write_reference(pack, path)
    return [path.read_bytes()]


@cache
def scratch() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="gtp-fuzz-"))


def read_recipe(content: bytes, folder: Path) -> None:
    from gtp_models.recipes import load_recipe

    load_recipe(str(_file(folder, "recipe.yaml", content))).settings()


def recipe_seed() -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = yaml.safe_load((RECIPES / "digits.yaml").read_bytes())
    return {**values, "reference": {"top1": 98.6, "source": "x"}}


def read_graph(content: bytes, folder: Path) -> None:
    """Scan, load with a manifest that fits, and read as the exporter does."""
    import gtp_runtime
    from gtp_exporters import graphs

    place = folder / "export"
    place.mkdir(exist_ok=True)
    path = _file(place, "model.onnx", content)
    import hashlib

    values = manifest_seed()
    values["files"]["model.onnx"] |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    _file(place, "model.json", json.dumps(values).encode())
    try:
        graphs.read(path)
    except expected():
        pass
    with gtp_runtime.load(place, threads=1) as model:
        model.run(np.zeros(model.entry.inputs[0].shape, np.float32))


def graph_seeds() -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((3072, 10), np.float32)[:, :10], "w")
    shape = numpy_helper.from_array(np.array([1, 3072], np.int64), "s")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "s"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "seed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [weights, shape],
    )
    small = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["x"]), helper.make_node("Gemm", ["x", "k"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
    )
    return [
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
        for made in (graph, small)
    ]


def read_weights(content: bytes, folder: Path) -> None:
    """The first byte says in which format the rest is read."""
    from gtp_models.state_dict import fit, read_state_dict

    suffix = (".safetensors", ".pth", ".pt")[content[0] % 3] if content else ".pth"
    fit(read_state_dict(_file(folder, f"weights{suffix}", content[1:])), _small_model())


@cache
def _small_model() -> Any:
    from timm.models import VisionTransformer

    return VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=3, num_classes=5)


def weights_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = {"pos_embed": torch.zeros(1, 10, 24), "head.weight": torch.zeros(5, 24), "x.gamma_1": torch.zeros(2)}
    seeds = [b"\x00" + save(state)]
    for content, old in ((state, False), ({"model": state}, False), (state, True), ({1: torch.zeros(1)}, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=not old)
        seeds.append(b"\x01" + stream.getvalue())
    return seeds


def read_image(content: bytes, folder: Path) -> None:
    from gtp_runtime import Preprocessing

    plain = Preprocessing([32, 32], "shortest", [32, 32], "bicubic", [0.5] * 3, [0.5] * 3, [0, 0, 0])
    path = _file(folder, "image.png", content)
    try:
        plain(path)
    finally:
        plain_exif(plain, path)


def plain_exif(plain: Any, path: Path) -> None:
    with contextlib.suppress(*expected()):
        plain(path, exif=True)


def image_seeds() -> list[bytes]:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    picture, seeds = Image.fromarray(noise), []
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    forms: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGB", {"exif": exif}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "LA", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "L", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("WEBP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("JPEG2000", "RGB", {}),
    ]
    for form, mode, options in forms:
        stream = io.BytesIO()
        made = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
        made.save(stream, form, **options)
        seeds.append(stream.getvalue())
    return seeds


def read_signature(content: bytes, folder: Path) -> None:
    """A signature, a key and a memory, all of them these bytes."""
    from gtp_runtime.trust import Trust, read_private_key, verify
    from gtp_runtime.trust import read_signature as read

    _file(folder, "model.sig", content)
    for action in (
        lambda: read(folder),
        lambda: read_private_key(_file(folder, "x.key", content)),
        lambda: Trust.of(_file(folder, "x.pub", content)),
    ):
        with contextlib.suppress(*expected()):
            action()
    shutil.copy(ROOT / "tests" / "fuzz" / "manifest.json", folder / "model.json")
    verify(folder, Trust((), remember=_file(folder, "memory", content)))


def signature_seeds() -> list[bytes]:
    from gtp_runtime.trust import write_key_pair

    place = scratch() / f"k{os.getpid()}"
    private, public = place.with_suffix(".key"), place.with_suffix(".pub")
    if not private.exists():
        write_key_pair(place)
    made = {"version": 3, "key": "0" * 16, "signature": "ab" * 64, "format": 1}
    return [json.dumps(made).encode(), private.read_bytes(), public.read_bytes(), b'{"version": 7}']


STOPPED = "stopped before any work"


def run_command(content: bytes, folder: Path) -> None:
    """A command line, one argument a line; what would take long is stopped where the work begins."""
    from gtp_export import cli, console

    arguments = content.decode("utf-8", "replace").replace("\0", "").split("\n")[:12]
    here, code = Path.cwd(), None
    with _stopped(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        os.chdir(folder)
        sys.argv = ["gtp-export", *arguments]
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
        finally:
            console.Verbosity.quiet = console.Verbosity.verbose = False
            os.chdir(here)
    assert code in (None, 0, 1, 2, 3, 4, 5), code
    assert "Traceback" not in err.getvalue()


@contextlib.contextmanager
def _stopped() -> Any:
    from unittest.mock import patch

    from gtp_exporters.errors import LimitError

    def stop(*arguments: object, **options: object) -> None:
        raise LimitError(STOPPED)

    with contextlib.ExitStack() as stack:
        for name in ("gtp_exporters.artifacts.to_onnx", "gtp_models.weights.build_model", "gtp_models.weights.outline"):
            stack.enter_context(patch(name, stop))
        stack.enter_context(patch("gtp_exporters.subject.build_model", stop))
        yield


@st.composite
def command_lines(draw: Any) -> bytes:
    """A command with options that exist, and values that may not fit them."""
    from typer.main import get_command

    from gtp_export import cli

    commands: Any = get_command(cli.app)
    name = draw(st.sampled_from(sorted(commands.commands)))
    options = [form for parameter in commands.commands[name].params for form in parameter.opts if form.startswith("-")]
    values = st.sampled_from(
        [
            "",
            "0",
            "-1",
            "1e400",
            "nan",
            "inf",
            "8",
            "8,8",
            "x",
            "../x",
            "digits",
            "tiny.yaml",
            "model.onnx",
            ".",
            "/",
            "[red]",
            "\x1b[2J",
            "9" * 50,
            "fp16",
            "auto",
            "7.png",
            "timm:x",
            "--",
            "-q",
            "é\udcff".encode("utf-8", "replace").decode(),
        ]
    )
    # a verbose run raises what is wrong, as it should
    words = st.sampled_from([option for option in options if option not in ("-v", "--verbose")] or ["-h"]) | values
    return "\n".join([name, *draw(st.lists(words, max_size=7))]).encode()


TARGETS: dict[str, Target] = {
    "manifest": Target(
        read_manifest,
        lambda: [json.dumps(manifest_seed()).encode()],
        (b"null", b"-1", b"1e999", b"[", b"{", b'"', b"\\u0000", b"\\ud800", b"9999999999999999999", b"true"),
        edits(manifest_seed),
    ),
    "pack": Target(read_pack, pack_seeds, (b"PK\x03\x04", b"PK\x01\x02", b"\x93NUMPY", b"'|O'", b"'<f4'"), packs()),
    "recipe": Target(
        read_recipe,
        lambda: (
            [path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))[:6]]
            + [(RECIPES / "digits.yaml").read_bytes()]
        ),
        (
            b"&a",
            b"*a",
            b"!!python/name:os.system",
            b"!!binary",
            b"!!timestamp",
            b"[",
            b"{",
            b"? ",
            b"<<:",
            b"0x",
            b"1:60:60",
        ),
        edits(recipe_seed),
    ),
    "graph": Target(read_graph, graph_seeds, (b"location", b"../x", b"EPContext", b"\xff\xff\xff\xff\x0f", b"MatMul")),
    "weights": Target(
        read_weights,
        weights_seeds,
        (b"PK\x03\x04", b"\x80\x02", b"cos\nsystem\n", b"ctorch\n", b"R.", b'"dtype"', b"[0,"),
    ),
    "image": Target(read_image, image_seeds, (b"IHDR", b"IDAT", b"\xff\xd8", b"II*\0", b"Exif", b"\xff\xff\xff\xff")),
    "signature": Target(read_signature, signature_seeds, (b"-----BEGIN", b'"version"', b"null", b"9" * 30)),
    "command": Target(
        run_command,
        lambda: [
            b"predict\nmodel.onnx\nx.png",
            b"inspect\n.",
            b"export\ndigits\n--num-prop\n8,8",
            b"doctor\n--json",
            b"models",
        ],
        (b"\n--json", b"\n-q", b"\n-o\n", b"\n--data\n.", b"\n--help"),
        command_lines(),
    ),
}
