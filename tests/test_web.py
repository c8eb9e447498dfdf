"""The site of an export: what is written, that no text of a manifest is markup, and that a browser proves parity."""

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import SEVEN, Command
from browser import CAMERA, CHROMIUM, WEBGPU, Page, browser, served
from PIL import Image

from gtp_exporters import web
from gtp_exporters.errors import LimitError, MissingPackageError
from gtp_exporters.web import SiteOptions, ort, write_site
from gtp_runtime import Model, read_manifest
from gtp_runtime.errors import ManifestError, OutputError
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.manifest import file_sha256, write_manifest
from gtp_runtime.parity import KeptSets, compare
from gtp_runtime.precisions import PRECISIONS
from gtp_runtime.reference import read_reference

MARKUP = '</script><script>alert("x")</script>&amp;'
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js: the page's JavaScript is run by it")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of onnxruntime-web, whose files are pinned."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "9.9.9"}', "utf-8")
    for table in ("WASM", "WEBGPU"):
        names = getattr(ort, table)
        for name in names:
            (folder / "dist" / name).write_text(f"// {name}", "utf-8")
        monkeypatch.setattr(ort, table, {name: file_sha256(folder / "dist" / name) for name in names})
    return folder


def packed(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "package")
    return target


def facts(site: Path) -> dict[str, Any]:
    return json.loads((site / "site.json").read_text("utf-8"))


def test_a_site_is_whole(digits: Path, package: Path, tmp_path: Path) -> None:
    site = write_site(digits, tmp_path / "site", SiteOptions(package))
    assert {path.relative_to(site.directory).as_posix() for path in site.directory.rglob("*") if path.is_file()} == set(
        site.files
    )
    listed = facts(site.directory)["files"]
    assert set(site.files) == {*listed, "site.json"}
    for name, entry in listed.items():
        assert entry == {"size": site.files[name], "sha256": file_sha256(site.directory / name)}
    assert file_sha256(site.directory / "model" / "model.onnx") == read_manifest(digits).files["model.onnx"].sha256
    assert {"index.html", "app.js", "model/dense.onnx", "ort/ort.webgpu.min.mjs", "ort-license.txt"} <= set(site.files)
    assert not list(tmp_path.glob(".gtp-export-*"))


def test_the_page_needs_no_other_server(digits: Path, package: Path, tmp_path: Path) -> None:
    site = write_site(digits, tmp_path / "site", SiteOptions(package)).directory
    for path in site.iterdir():
        if path.suffix in (".html", ".js", ".css"):
            text = path.read_text("utf-8")
            assert not re.search(r"(https?:)?//[a-z0-9-]+\.", re.sub(r"^\s*//.*|\s// .*", "", text, flags=re.M)), (
                path.name
            )
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (site / "index.html").read_text("utf-8"))
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
    assert "connect-src 'self'" in policy[1] and "unsafe-inline" not in policy[1]


def test_no_text_of_the_manifest_is_markup(digits_copy: Path, package: Path, tmp_path: Path) -> None:
    manifest = read_manifest(digits_copy)
    hostile = replace(
        manifest,
        model=replace(manifest.model, title=MARKUP, timm=MARKUP),
        weights=replace(manifest.weights, detail=MARKUP),
        labels=[MARKUP] * 10,
        reference={"images": MARKUP},
    )
    write_manifest(hostile, digits_copy)
    site = write_site(digits_copy, tmp_path / "site", SiteOptions(package)).directory
    assert facts(site)["model"]["labels"] == [MARKUP] * 10
    for path in web.PAGE.iterdir():  # the same files for every model
        assert (site / path.name).read_bytes() == path.read_bytes()
        sinks = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|setAttribute\(\"on"
        )
        assert not re.search(sinks, path.read_text("utf-8")), path.name


def test_the_page_has_the_packs_arrays_and_the_runtimes_limits(digits: Path, package: Path, tmp_path: Path) -> None:
    site = write_site(digits, tmp_path / "site", SiteOptions(package)).directory
    content, found = (site / "pack.bin").read_bytes(), facts(site)
    pack = read_reference(digits / "reference.npz")

    def array(name: str) -> np.ndarray:
        entry = found["pack"][name]
        assert entry["offset"] % 8 == 0
        return np.frombuffer(
            content, f"<{np.dtype(entry['dtype']).str[1:]}", int(np.prod(entry["shape"])), entry["offset"]
        )

    assert np.array_equal(array("images"), pack.images.reshape(-1))
    assert np.array_equal(array("output/logits"), pack.answers.reshape(-1))
    assert pack.labels is not None and np.array_equal(array("labels"), pack.labels)
    for layer, ids in enumerate(pack.propagated):
        assert np.array_equal(array(f"propagated/{layer}"), ids.reshape(-1))
    assert found["graphs"]["model"]["limits"] == asdict(PRECISIONS["fp32"].parity)
    assert found["model"]["preprocessing"] == asdict(read_manifest(digits).preprocessing)


def test_without_webgpu_and_without_dense(digits: Path, package: Path, tmp_path: Path) -> None:
    site = write_site(digits, tmp_path / "site", SiteOptions(package, webgpu=False, dense=False))
    assert not [name for name in site.files if "webgpu" in name or "asyncify" in name or "dense" in name]
    assert list(facts(site.directory)["graphs"]) == ["model"]
    assert len(site.notes) == 1 and "dense" in site.notes[0]


def test_another_package_is_refused(digits: Path, package: Path, tmp_path: Path) -> None:
    (package / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm other")
    with pytest.raises(LimitError, match=r"ort-wasm-simd-threaded\.wasm .*9\.9\.9"):
        write_site(digits, tmp_path / "site", SiteOptions(package))
    (package / "dist" / "ort-wasm-simd-threaded.wasm").unlink()
    for place in (package, packed(package, tmp_path / "a.tgz"), tmp_path / "nothing.tgz", SEVEN):
        with pytest.raises(LimitError, match=re.escape(place.name)):
            write_site(digits, tmp_path / "site", SiteOptions(place))
    assert not (tmp_path / "site").exists() and not list(tmp_path.glob(".gtp-export-*"))


def npm(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    (folder / "npm").chmod(0o755)


def test_npm_fetches_the_package(digits: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in npm's place writes what it was asked for, and copies the package to where it was told."""
    archive = packed(package, tmp_path / "package.tgz")
    npm(tmp_path / "bin", f'echo "$@" > {tmp_path}/asked; cp {archive} ./onnxruntime-web.tgz')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert "ort/ort.wasm.min.mjs" in write_site(digits, tmp_path / "site").files
    asked = (tmp_path / "asked").read_text("utf-8").split()
    assert asked[:2] == ["pack", f"onnxruntime-web@{ort.VERSION}"] and "--ignore-scripts" in asked


def test_without_npm_or_network(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", "echo ENOTFOUND >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingPackageError, match=r"ENOTFOUND.*--ort-web"):
        write_site(digits, tmp_path / "site")
    (tmp_path / "bin" / "npm").unlink()
    with pytest.raises(MissingPackageError, match=r"npm.*--ort-web"):
        write_site(digits, tmp_path / "site")


def test_only_an_earlier_site_is_replaced(digits: Path, package: Path, tmp_path: Path) -> None:
    place, options = tmp_path / "site", SiteOptions(package)
    place.mkdir()
    write_site(digits, place, options)
    write_site(digits, place, replace(options, dense=False))
    assert not (place / "model" / "dense.onnx").exists()
    before = sorted(place.rglob("*"))
    with pytest.raises(LimitError):
        write_site(digits, place, SiteOptions(SEVEN))
    assert sorted(place.rglob("*")) == before, "what fails leaves the earlier site whole"
    (place / "model" / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match=r"model/mine\.txt.*-o"):
        write_site(digits, place, options)
    assert (place / "model" / "mine.txt").read_text("utf-8") == "mine"
    for other in (digits, package / "package.json"):
        with pytest.raises(OutputError, match="-o"):
            write_site(digits, other, options)


def test_what_no_browser_runs_is_refused(
    digits_copy: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SiteOptions(package)
    monkeypatch.setattr(web, "HEAVY", 1 << 20)
    assert any("memory" in note for note in write_site(digits_copy, tmp_path / "site", options).notes)
    monkeypatch.setattr(web, "LARGEST", 4 << 20)  # of two graphs with 2.8 MB each
    with pytest.raises(LimitError, match="--no-dense"):
        write_site(digits_copy, tmp_path / "site", options)
    assert write_site(digits_copy, tmp_path / "site", replace(options, dense=False)).files
    with pytest.raises(LimitError, match=r"reference\.npz"):
        write_site(digits_copy / "reference.npz", tmp_path / "site", options)
    (digits_copy / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ManifestError, match=r"model\.onnx"):
        write_site(digits_copy, tmp_path / "other", options)
    assert not (tmp_path / "other").exists()


def test_the_command(command: Command, digits: Path, package: Path, tmp_path: Path) -> None:
    ran = command("web", digits, "-o", tmp_path / "site", "--ort-web", package)
    assert ran.code == 0 and "http.server" in ran.last and str(tmp_path / "site") in ran.last
    ran = command("web", digits, "-o", tmp_path / "site", "--ort-web", package, "--json")
    assert set(json.loads(ran.out)) == {"directory", "files", "notes"}
    for code, *arguments in (
        (1, tmp_path / "nothing", "-o", tmp_path / "b"),
        (1, digits, "-o", digits),
        (1, digits, "-o", tmp_path / "b", "--precision", "fp16"),
        (2, digits, "-o", tmp_path / "b", "--ort-web", tmp_path / "nothing"),
    ):
        ran = command("web", "--ort-web", package, *arguments)
        assert ran.code == code and len(ran.err.strip().splitlines()) == 1, ran.err


def run_node(tmp_path: Path, code: str, document: object) -> Any:
    """Run JavaScript that imports the page's modules; ``given`` is the document, and it prints one."""
    for path in web.PAGE.glob("*.js"):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")
    (tmp_path / "given.json").write_text(json.dumps(document), "utf-8")
    read = 'import fs from "fs"; const given = JSON.parse(fs.readFileSync("given.json"));'
    (tmp_path / "test.js").write_text(f"{read}\n{code}", "utf-8")
    done = subprocess.run([str(NODE), "test.js"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PREPROCESS = """
import { pixels, prepare } from "./images.js";
const answers = given.map(({ width, height, data, preprocessing }) => {
  const image = pixels({ width, height, data: Uint8Array.from(data) }, preprocessing);
  return { pixels: Array.from(image.data), input: Array.from(prepare(image.data, "float32", preprocessing)) };
});
console.log(JSON.stringify(answers));
"""


def cases() -> Iterator[tuple[Preprocessing, np.ndarray]]:
    """Yield every way of resizing, with images that shrink, grow, and are smaller than the crop."""
    rng = np.random.default_rng(0)
    colours = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], [3, 4, 5])
    ways = [("shortest", name, True) for name in ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")]
    ways += [(mode, "bicubic", True) for mode in ("cover", "contain", "squash")]
    ways += [("shortest", name, False) for name in ("bicubic", "bilinear")]
    for mode, interpolation, antialias in ways:
        for (width, height), size, crop in (((61, 47), 24, 20), ((13, 21), 30, 30), ((24, 24), 24, 32)):
            yield (
                Preprocessing([size, size], mode, [crop, crop], interpolation, *colours, antialias=antialias),
                rng.integers(0, 256, (height, width, 3), np.uint8),
            )


@needs_node
def test_the_page_preprocesses_as_the_runtime(tmp_path: Path) -> None:
    """Equal to the last bit with antialiasing; without, the page rounds sums of another order: by one level at most."""
    entries = [
        {
            "width": image.shape[1],
            "height": image.shape[0],
            "data": image.reshape(-1).tolist(),
            "preprocessing": asdict(p),
        }
        for p, image in cases()
    ]
    answers = run_node(tmp_path, PREPROCESS, entries)
    for (preprocessing, image), answer in zip(cases(), answers, strict=True):
        expected = preprocessing.pixels(image)
        pixels = np.array(answer["pixels"], np.int64).reshape(expected.shape)
        assert np.abs(pixels - expected).max() <= (0 if preprocessing.antialias else 1), preprocessing
        input_ = np.array(answer["input"], np.float32).reshape(3, *expected.shape[:2])
        assert np.array_equal(input_, preprocessing.normalise(pixels.astype(np.uint8)))


STRIP = """
import { withoutExif } from "./images.js";
console.log(JSON.stringify(given.map((bytes) => Array.from(withoutExif(Uint8Array.from(bytes))))));
"""


@needs_node
def test_the_page_reads_a_photo_as_it_is_stored(tmp_path: Path) -> None:
    """Browsers turn images by their Exif, and the manifest may say that the runtime does not."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    files = [io.BytesIO() for _ in range(3)]
    picture.save(files[0], "JPEG", exif=exif, dpi=(72, 72))
    picture.save(files[1], "JPEG", dpi=(72, 72))
    picture.save(files[2], "PNG", exif=exif)
    damaged = files[0].getvalue()[:30]
    contents = [*(file.getvalue() for file in files), damaged, b""]
    turned, plain, png, cut, nothing = map(bytes, run_node(tmp_path, STRIP, [list(content) for content in contents]))
    assert turned == plain == contents[1] and png == contents[2] and nothing == b""
    assert len(cut) <= len(damaged)


COMPARE = """
import { compare } from "./parity.js";
const typed = ({ shape, data }, type) => ({ shape, data: type.from(data) });
const floats = (array) => typed(array, Float32Array);
const ids = (array) => typed(array, Int32Array);
const answers = given.map(({ outputs, expected, kept, ...options }) => compare(
  { logits: floats(outputs) }, { logits: floats(expected) },
  { ...options, classes: true, kept: { ...kept, propagated: ids(kept.propagated), receivedBy: ids(kept.receivedBy),
    expected: kept.expected.map(ids), receivers: kept.receivers.map(ids), gaps: kept.gaps.map(floats) } },
));
console.log(JSON.stringify(answers));
"""


def array(values: np.ndarray) -> dict[str, Any]:
    return {"shape": list(values.shape), "data": values.reshape(-1).tolist()}


def parity_case(rng: np.random.Generator, activation: str, classes: int, flips: int) -> tuple[dict[str, Any], Any]:
    """Return a comparison for the page, and the runtime's; ``flips`` images remove another token."""
    images, tokens, counts = 6, 12, [3, 0, 4]
    order = np.stack([rng.permutation(tokens) for _ in range(images)]).astype(np.int32)
    expected = [part.astype(np.int32) for part in np.split(order[:, :7], np.cumsum(counts)[:-1], axis=1)]
    receivers = [np.broadcast_to(order[:, 8:9], ids.shape).copy() for ids in expected]
    gaps = [rng.random(images).astype(np.float32) for _ in counts]
    actual, into = order[:, :7].copy(), np.concatenate(receivers, 1)
    actual[:, [3, 4]] = actual[:, [4, 3]]  # the order within a layer does not count
    actual[:flips, 0] = order[:flips, 7]
    into[flips : 2 * flips, 2] = order[flips : 2 * flips, 9]
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    noisy = logits + rng.normal(size=logits.shape).astype(np.float32) * np.float32(1e-4 * (1 + 99 * flips))
    kept = KeptSets(actual, expected, gaps, tokens, into, receivers)
    given = {
        "outputs": array(noisy),
        "expected": array(logits),
        "activation": activation,
        "limits": asdict(PRECISIONS["fp32"].parity),
        "kept": {
            "propagated": array(actual),
            "receivedBy": array(into),
            "expected": [array(ids) for ids in expected],
            "receivers": [array(ids) for ids in receivers],
            "gaps": [array(values) for values in gaps],
            "tokens": tokens,
        },
    }
    return given, compare(noisy, logits, kept=kept, activation=activation)


@needs_node
def test_the_page_compares_as_the_runtime(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    settings = [("softmax", 5, 0), ("softmax", 5, 2), ("sigmoid", 4, 0), ("sigmoid", 4, 1), ("softmax", 1, 0)]
    both = [parity_case(rng, *setting) for setting in settings]
    answers = run_node(tmp_path, COMPARE, [given for given, _ in both])
    for answer, (_, expected) in zip(answers, both, strict=True):
        assert answer["ok"] == expected.ok and len(answer["problems"]) == len(expected.problems)
        pairs = [
            ("top1", expected.top1_agreement),
            ("kept", expected.kept_agreement),
            ("receivers", expected.receiver_agreement),
            ("overlap", expected.kept_overlap),
            ("error", expected.max_abs_fraction),
            ("errorAll", expected.max_abs_fraction_all),
            ("cosine", expected.cosine),
            ("kl", expected.kl),
        ]
        for name, value in pairs:
            assert answer[name] == pytest.approx(value, rel=1e-4, abs=1e-7), name
        for layer, other in zip(answer["layers"], expected.layers, strict=True):
            assert (layer["layer"], layer["agreement"]) == (other.layer, other.agreement)
            assert layer["flippedGap"] == (None if other.flipped_gap is None else pytest.approx(other.flipped_gap))
    assert [answer["ok"] for answer in answers] == [True, False, True, False, True]


@pytest.fixture(scope="module")
def real_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package itself; the tests that need it are skipped where it cannot be had."""
    try:
        return ort.fetch(tmp_path_factory.mktemp("npm"))
    except MissingPackageError as error:
        pytest.skip(str(error))


def state(page: Page, name: str) -> str:
    return page.wait(f"document.documentElement?.dataset.{name}")


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")


@needs_chromium
@pytest.mark.full
def test_a_browser_proves_parity(digits: Path, model: Model, real_package: Path, tmp_path: Path) -> None:
    site = write_site(digits, tmp_path / "site", SiteOptions(real_package)).directory
    with served(site) as address, browser(tmp_path / "profile", CAMERA) as page:
        page.open(address)
        assert state(page, "parity") == "ok"
        assert state(page, "done") == "wasm"
        assert 0.1 < float(state(page, "ratio")) < 2
        page.choose("#file", SEVEN)
        page.wait("document.documentElement?.dataset.image === '000.png'")
        assert state(page, "best") == str(model.predict(SEVEN)[0].index)
        page.value("document.getElementById('camera').click()")
        page.wait("document.documentElement?.dataset.image === 'Camera'")
        page.value("document.getElementById('camera').click()")
        assert page.complaints() == []
        assert all(asked.startswith((address, "data:", "blob:")) for asked in page.addresses())


@needs_chromium
@pytest.mark.full
def test_a_browser_finds_what_differs(digits: Path, real_package: Path, tmp_path: Path) -> None:
    """The graph of other tokens fails, as it does in the runtime; a damaged one is not run, and text is no markup."""
    site = write_site(digits, tmp_path / "site", SiteOptions(real_package)).directory
    document = facts(site)
    document["model"]["title"] = MARKUP
    offset = document["pack"]["propagated/0"]["offset"]
    content = bytearray((site / "pack.bin").read_bytes())
    length = 4 * int(np.prod(document["pack"]["propagated/0"]["shape"]))
    content[offset : offset + length] = np.tile(np.arange(6, dtype="<i4"), length // 24).tobytes()
    (site / "pack.bin").write_bytes(content)
    (site / "site.json").write_text(json.dumps(document), "utf-8")
    with served(site) as address, browser(tmp_path / "profile", []) as page:
        page.open(address)
        assert state(page, "parity") == "failed"
        assert page.value("document.getElementById('problems').childElementCount") > 0
        assert page.value("document.getElementById('title').textContent") == MARKUP
        graph = site / "model" / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"\xff")
        page.call("Page.reload")
        page.wait("document.documentElement?.dataset.parity === 'error'")
        assert "model.onnx" in page.value("document.getElementById('status').textContent")


@needs_chromium
@pytest.mark.full
def test_webgpu_proves_parity(digits: Path, real_package: Path, tmp_path: Path) -> None:
    """On four images: without a GPU, Chromium computes in software."""
    site = write_site(digits, tmp_path / "site", SiteOptions(real_package)).directory
    document = facts(site)
    for entry in document["pack"].values():
        entry["shape"][0] = 4
    (site / "site.json").write_text(json.dumps(document), "utf-8")
    with served(site) as address, browser(tmp_path / "profile", WEBGPU) as page:
        page.open(address)
        assert state(page, "done") == "wasm"
        if not page.value("navigator.gpu?.requestAdapter().then(Boolean) ?? false"):
            pytest.skip("this Chromium has no WebGPU, not even in software")
        page.value("document.querySelector('input[value=webgpu]').click()")
        page.wait("document.documentElement?.dataset.done === 'webgpu'")
        assert state(page, "parity") == "ok"
