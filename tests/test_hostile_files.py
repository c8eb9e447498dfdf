"""Files from elsewhere: each is refused with a typed one-line error, before memory is spent, which is measured."""

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import SEVEN, Command
from measured import measured
from PIL import Image

import gtp_runtime
from gtp_models.checkpoints import read_checkpoint
from gtp_models.errors import ConfigError, UnknownModelError, WeightsError
from gtp_models.recipes import load_recipe
from gtp_runtime import Preprocessing
from gtp_runtime.errors import ImageError, ManifestError
from gtp_runtime.images.decoding import open_image
from gtp_runtime.manifest import read_manifest, write_manifest
from gtp_runtime.reference import read_reference

BOUND = 64  # MB that a refusal may take
READ = "from gtp_runtime.{} import {}; from pathlib import Path"


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and len(text) < 1000
    return text


def png(path: Path, width: int, height: int, blocks: int | None = None) -> Path:
    """A PNG of so many black pixels of one bit; its data are ``blocks`` of 1 MiB of zeros, packed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = (width + 7) // 8 + 1
    count = -(-rows * height >> 20) if blocks is None else blocks
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(count)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("width", "height"), [(4_000_000, 1), (1, 4_000_000), (13_000, 13_000), (100_000, 100_000)])
def test_image_bombs(tmp_path: Path, width: int, height: int) -> None:
    path = png(tmp_path / "bomb.png", width, height, blocks=None if width * height < 10**9 else 1)
    assert path.stat().st_size < 100_000
    setup = (
        f"{READ.format('images.preprocessing', 'Preprocessing')}\n"
        "plain = Preprocessing([256, 256], 'shortest', [224, 224], 'bicubic', [0.5] * 3, [0.5] * 3, [0, 0, 0])"
    )
    ran = measured(setup, f"plain.pixels({str(path)!r})")
    assert ran.error == "ImageError"
    assert "at most 67108864" in ran.text or "too long and thin" in ran.text or "decompression bomb" in ran.text
    assert ran.grown < BOUND, ran


LARGE: dict[str, tuple[str, str, tuple[int, int], int]] = {
    "the most colours": ("P", "png", (8192, 8192), 256),
    "the most to resize": ("RGB", "png", (4000, 16_000), 4096),  # to 4096 x 16384, as many as may be
    "too thin to be resized": ("F", "tif", (8, 1 << 23), 256),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_largest_image_takes_less_than_a_gigabyte(tmp_path: Path, name: str) -> None:
    """The whole image is resized, and the crop is cut out of that: both are bounded."""
    mode, suffix, size, short = LARGE[name]
    path = tmp_path / f"large.{suffix}"
    Image.new(mode, size).save(path)
    setup = (
        f"{READ.format('images.preprocessing', 'Preprocessing')}\n"
        f"plain = Preprocessing([{short}] * 2, 'shortest', [224, 224], 'bicubic', [0.5] * 3, [0.5] * 3, [0, 0, 0])"
    )
    ran = measured(setup, f"plain.pixels({str(path)!r}, exif=True)")
    assert ran.error == ("ImageError" if mode == "F" else "")
    assert ran.grown < 1000, ran


@pytest.fixture
def special(tmp_path: Path) -> dict[str, Path]:
    """Things that are no regular files, each of which would wait for ever or never end."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    return {name: tmp_path / name for name in ("fifo", "socket", "folder", "link")} | {"device": Path("/dev/zero")}


def test_what_is_no_regular_file(special: dict[str, Path], tmp_path: Path) -> None:
    for name, path in special.items():
        with pytest.raises(ImageError, match="cannot read the image"):
            open_image(path)
        with pytest.raises(ManifestError):
            read_reference(path)
        place = tmp_path / f"as-{name}"
        place.mkdir()
        (place / "model.json").symlink_to(path)
        with pytest.raises(ManifestError, match="cannot read the manifest"):
            read_manifest(place)
        for suffix in (".safetensors", ".pth"):
            (place / f"w{suffix}").symlink_to(path)
            with pytest.raises(WeightsError, match="cannot read weights"):
                read_checkpoint(place / f"w{suffix}")
        (place / "r.yaml").symlink_to(path)
        with pytest.raises(UnknownModelError, match="cannot read the recipe"):
            load_recipe(str(place / "r.yaml"))


def test_other_formats_are_not_even_tried(tmp_path: Path) -> None:
    postscript = tmp_path / "image.eps"
    Image.new("RGB", (4, 4)).save(postscript)
    (tmp_path / "image.png").write_bytes(postscript.read_bytes())
    for path in (postscript, tmp_path / "image.png"):
        with pytest.raises(ImageError, match="BMP, GIF, JPEG"):
            open_image(path)


@pytest.mark.parametrize("cut", [0, 1, 8, 20, 33, 60, 100])
def test_a_truncated_image(tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut.png").write_bytes(SEVEN.read_bytes()[:cut])
    with pytest.raises(ImageError) as refused:
        open_image(tmp_path / "cut.png")
    one_line(refused.value)


def test_a_thin_image_that_can_be_resized() -> None:
    plain = Preprocessing([16, 16], "shortest", [16, 16], "bicubic", [0.5] * 3, [0.5] * 3, [0, 0, 0])
    assert plain.pixels(np.zeros((2, 3000, 3), np.uint8)).shape == (16, 16, 3)
    with pytest.raises(ImageError, match=r"3000000 x 1 .*48000000 x 16 "):
        plain.pixels(np.zeros((1, 3_000_000, 3), np.uint8))


def npy(shape: str, descr: str = "'|u1'") -> bytes:
    stream = io.BytesIO()
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    return stream.getvalue()


def bomb(path: Path, header: bytes, zeros: int, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive whose one array is a header and so many MiB of zeros."""
    with zipfile.ZipFile(path, "w", kind) as archive, archive.open("images.npy", "w", force_zip64=True) as file:
        file.write(header)
        for _ in range(zeros):
            file.write(bytes(1 << 20))
    return path


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a bomb": (lambda path: bomb(path, npy("(300, 1024, 1024)"), 300), "it unpacks to 314572928 bytes, at most"),
    "a small bomb": (lambda path: bomb(path, npy("(64, 1024, 1024)"), 64), "it unpacks to 67108992 bytes, at most"),
    "a header that lies": (lambda path: bomb(path, npy("(1000000, 1000000)"), 1), "is not as large as its shape"),
    "a negative size": (lambda path: bomb(path, npy("(-1, -1048576)"), 1), "is not as large as its shape"),
    "objects": (lambda path: bomb(path, npy("(1,)", "'|O'"), 1), "holds Python objects, which are never unpickled"),
    "another packing": (lambda path: bomb(path, npy("(1048576,)"), 1, zipfile.ZIP_LZMA), "is packed in another way"),
    "a header that does not end": (lambda path: bomb(path, npy("(" * 3000), 1), "has a header that cannot be read"),
    "no header": (lambda path: bomb(path, b"", 1), "magic"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(tmp_path: Path, name: str) -> None:
    make, words = ARCHIVES[name]
    path = make(tmp_path / "reference.npz")
    ran = measured(READ.format("reference", "read_reference"), f"read_reference(Path({str(path)!r}))")
    assert ran.error == "ManifestError"
    assert words in ran.text and "\n" not in ran.text
    assert ran.grown < BOUND, ran


def test_manifests_that_are_too_large(tmp_path: Path) -> None:
    with (tmp_path / "model.json").open("wb") as file:
        file.truncate(1 << 40)
    ran = measured(READ.format("manifest", "read_manifest"), f"read_manifest(Path({str(tmp_path)!r}))")
    assert ran.error == "ManifestError"
    assert "1099511627776 bytes, at most 16777216" in ran.text
    assert ran.grown < BOUND, ran


def test_files_that_are_larger_than_the_manifest_says_are_not_read(digits_copy: Path) -> None:
    os.truncate(digits_copy / "model.onnx", 1 << 40)
    with pytest.raises(ManifestError, match=r"1099511627776 bytes, .*sha256 differs"):
        gtp_runtime.load(digits_copy)


RECIPES = {
    "aliases": ("timm: a\nreference:\n  a: &a [x, x]\n  b: [*a, *a]", "it has aliases"),
    "deep": ("timm: a\nreference: " + "[" * 5000, "nested more than 16 levels"),
    "labels of numbers": ("timm: a\nlabels: [1, 2]", "labels takes imagenet-1k, or a list of names in quotes"),
    "labels with control characters": ('timm: a\nlabels: ["\\e[31mred"]', "labels takes"),
    "a title that is a list": ("timm: a\ntitle: [b]", "title takes a line of text"),
    "a title of two lines": ('timm: a\ntitle: "b\\nc"', "title takes a line of text"),
    "a preset that is a list": ("timm: a\ngtp: {preset: [paper]}", "gtp.preset takes the name of a preset"),
    "a number without digits": ("timm: a\ngtp: !!int ''", "is not YAML"),
    "gtp is a list": ("timm: a\ngtp: [8]", "gtp takes settings by name"),
    "numbers as names": ("timm: a\nmodel_args: {1: 2}", "model_args takes settings by name"),
    "a weights file that is a number": ("timm: a\nweights: 5", "weights takes a line of text"),
    "a name with a path": ("timm: a\nname: ../b", "name takes a plain name"),
    "a number of many digits": ("timm: a\nmodel_args: {depth: " + "9" * 5000 + "}", "is not YAML"),
    "a date that is none": ("timm: a\nreference: {on: 2001-99-99}", "is not YAML"),
    "many layers": ("timm: a\nmodel_args: {depth: 1000000000}", "model_args.depth takes at most 512"),
    "large images": ("timm: a\nmodel_args: {img_size: [1000000000, 1]}", "model_args.img_size.0 takes at most 65536"),
    "no number": ("timm: a\nmodel_args: {img_size: .nan}", "model_args.img_size takes at most 65536"),
    "code": ("timm: !!python/object/apply:os.system ['true']", "is not YAML"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(tmp_path: Path, name: str) -> None:
    text, words = RECIPES[name]
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_recipe(str(tmp_path / "r.yaml"))
    assert words in one_line(refused.value)


def test_a_recipe_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("timm: a\n" * 200_000, encoding="utf-8")
    with pytest.raises(UnknownModelError, match="1600000 bytes, .*1048576 "):
        load_recipe(str(tmp_path / "r.yaml"))


SIZES = {
    "an enormous model": ("embed_dim: 65535, depth: 16, num_heads: 1", r"parameters: give smaller sizes"),
    "no heads": ("num_heads: 0", "timm cannot build vit_tiny_patch16_224 with num_heads=0"),
    "words for numbers": ("embed_dim: many", "timm cannot build vit_tiny_patch16_224 with embed_dim='many'"),
    "an unknown argument": ("colour: red", "timm cannot build vit_tiny_patch16_224 with colour='red'"),
    "negative": ("depth: 2, embed_dim: -3", "timm cannot build"),
}


@pytest.mark.parametrize("name", SIZES)
def test_model_arguments(command: Command, name: str) -> None:
    arguments, words = SIZES[name]
    text = f"timm: vit_tiny_patch16_224\nmodel_args: {{{arguments}}}"
    Path("r.yaml").write_text(text, encoding="utf-8")
    ran = command("export", "r.yaml", "--weights", "random", "-q")
    assert ran.code == 2, ran.err
    assert words in ran.error and "Traceback" not in ran.err


PREPROCESSING = ["crop_pct: x", "mean: abc", "std: [0, 0, 0]", "interpolation: best", "crop_pct: 1.0e-9"]


@pytest.mark.parametrize("text", PREPROCESSING)
def test_preprocessing_of_a_recipe(command: Command, text: str) -> None:
    sizes = "{img_size: 16, patch_size: 4, embed_dim: 24, depth: 2, num_heads: 3, num_classes: 5}"
    Path("r.yaml").write_text(
        f"timm: vit_tiny_patch16_224\nmodel_args: {sizes}\npreprocessing: {{{text}}}\ngtp: {{num_prop: 3}}",
        encoding="utf-8",
    )
    ran = command("export", "r.yaml", "--weights", "random", "-q")
    assert ran.code == 2, ran.err
    assert f"preprocessing.{text.partition(':')[0]}" in ran.error


class Runs:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("pickle-was-run",))


CHECKPOINTS: dict[str, tuple[object, str]] = {
    "code": ({"a": Runs()}, "(pickled objects are never executed); save model.state_dict() alone"),
    "numbers for names": ({1: torch.zeros(2)}, "has the key 1, and weights have names"),
    "control characters": ({"a\x1b": torch.zeros(2)}, "has the key 'a\\x1b'"),
    "sparse": ({"a": torch.zeros(2, 2).to_sparse()}, "is no plain tensor"),
    "complex": ({"a": torch.zeros(2, dtype=torch.complex64)}, "is complex"),
    "stretched": ({"a": torch.zeros(1).expand(10**9)}, "more values than the file holds"),
    "no tensors": ({"a": 5}, "holds no state dict"),
    "a list": ([torch.zeros(2)], "holds no state dict"),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = CHECKPOINTS[name]
    torch.save(content, "w.pth")
    with pytest.raises(WeightsError) as refused:
        read_checkpoint(Path("w.pth"))
    text = one_line(refused.value)
    assert words in text
    assert "weights_only" not in text and "trust" not in text
    assert not Path("pickle-was-run").exists()


def test_a_packed_checkpoint(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as given, zipfile.ZipFile(tmp_path / "p.pth", "w", 8) as packed:
        for name in given.namelist():
            packed.writestr(name, given.read(name))
    with pytest.raises(WeightsError, match=r"p\.pth is packed"):
        read_checkpoint(tmp_path / "p.pth")


REFUSE = """
from pathlib import Path
from gtp_exporters.graph import files as graphs
from gtp_models.recipes import load_recipe
from gtp_models.checkpoints import read_checkpoint
READERS = {".pth": read_checkpoint, ".safetensors": read_checkpoint, ".yaml": lambda path: load_recipe(str(path))}

def refuse(folder):
    for path in sorted(Path(folder).iterdir()):
        try:
            READERS.get(path.suffix, graphs.read)(path)
        except Exception as error:
            assert "Error" in type(error).__name__ and type(error).__module__.startswith("gtp_"), error
        else:
            raise AssertionError(path)
"""


def test_refusing_weights_recipes_and_graphs_takes_little_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "stretched.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "bomb.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/1", bytes(200 << 20))
    (tmp_path / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    shape = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "shape.safetensors").write_bytes(struct.pack("<Q", len(shape)) + shape)
    laughs = ["timm: a", "reference:", "  a0: &a0 [x, x]"]
    laughs += [f"  a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    (tmp_path / "laughs.yaml").write_text("\n".join(laughs), "utf-8")
    (tmp_path / "deep.yaml").write_text("timm: a\nreference: " + "[" * 500_000, "utf-8")
    (tmp_path / "length.onnx").write_bytes(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
    with (tmp_path / "zeros.onnx").open("wb") as file:
        file.truncate(1 << 36)
    ran = measured(REFUSE, f"refuse({str(tmp_path)!r})")
    assert ran.error == "", ran
    assert ran.grown < BOUND, ran


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, struct.pack("<Q", 1 << 60), struct.pack("<Q", 2) + b"[]"])
def test_damaged_safetensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot read weights") as refused:
        read_checkpoint(tmp_path / "w.safetensors")
    one_line(refused.value)


def test_markup_and_control_characters_are_shown_as_they_are(
    command: Command, digits_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = digits_copy.parent / "[red]x[bold]"
    digits_copy.rename(place)
    manifest = read_manifest(place)
    write_manifest(replace(manifest, model=replace(manifest.model, title="[red]x[/blue]")), place)
    image = Path("[bold]\x1b[2J.png")
    image.write_bytes(SEVEN.read_bytes())
    for arguments in (
        ("inspect", place),
        ("predict", place, image),
        ("bench", place, "--seconds", "0", "--no-footprint"),
    ):
        ran = command(*arguments)
        assert ran.code == 0, ran.err
        assert "\x1b[2J" not in ran.out + ran.err
    assert "[bold]\\x1b[2J.png" in command("predict", place, image).out
    assert "[red]x[/blue] (" in command("inspect", place).out
    assert f"{place}/model.onnx" in command("bench", place, "--seconds", "0", "--no-footprint").out
