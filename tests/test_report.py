"""The page of an artifact directory: complete, escaped, of one file, and listed by the manifest."""

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import DIGITS, SEVEN, Command
from PIL import Image

import gtp_runtime
from gtp_exporters import write_report
from gtp_exporters.errors import MissingPackageError
from gtp_exporters.report.page import render
from gtp_exporters.report.pictures import pictures_of
from gtp_exporters.report.samples import Sample, make_map, samples_of_files, samples_of_pack
from gtp_runtime import Manifest, Model, read_manifest
from gtp_runtime.errors import OutputError
from gtp_runtime.manifest import REFERENCE_NAME, OutputInfo, file_sha256, write_manifest
from gtp_runtime.reference import read_reference, write_reference
from gtp_runtime.transaction import staged

MARKUP = '<script>alert("x")</script>&amp;'
VOID = {"meta", "br", "path", "rect", "use", "image"}


class Page(HTMLParser):
    """Reads a page and checks that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.seen if tag == name]


def page(directory: Path) -> Page:
    return Page((directory / "report.html").read_text("utf-8"))


def measured(directory: Path) -> None:
    """Give an export results of every kind."""
    with (
        gtp_runtime.load(directory, threads=1) as model,
        gtp_runtime.load(directory / "dense.onnx", threads=1) as dense,
    ):
        for file, result in zip((dense, model), gtp_runtime.benchmark([dense, model], 0.05), strict=True):
            file.record("latency", {**result.to_dict(), "file": file.path.name, **file.backend.info})
        model.record("parity", model.validate().to_dict())
        found = gtp_runtime.evaluate(model, dense, DIGITS / "images" / "3")
        model.record("accuracy", {**found.to_dict(), "data": "images", "unreadable": 3})


def test_a_page_of_everything(digits_copy: Path) -> None:
    measured(digits_copy)
    assert write_report(digits_copy) == digits_copy / "report.html"
    found = page(digits_copy)
    words = " ".join(found.text.split())
    for text in ("parity with PyTorch, 360 images", "of the dense model's MACs", "37 of images", "class: 0; model: 0"):
        assert text in words
    for text in ("3 images could not be read.", "layer 0: 64 → 58", "layer 5: 34 → 28", "65 → 59"):
        assert text in words
    assert len(found.tags("image")) == 4, "one image for all its panels"
    assert len(found.tags("use")) == 4 * 7
    assert len([box for box in found.tags("svg") if box.get("class") == "box"]) == 2


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_dense_outputs_are_pictures(digits: Path) -> None:
    rng, manifest = np.random.default_rng(0), read_manifest(digits)
    kinds = {"map": "map", "patches": "patches", "depth": "tensor", "mean": "tensor", "features": "features"}
    manifest = replace(manifest, outputs={name: OutputInfo(kind) for name, kind in kinds.items()})
    field = rng.normal(size=(24, 8, 8))
    dense = {"map": field, "patches": field.reshape(24, 64).T, "depth": np.arange(400 * 300.0).reshape(400, 300)}
    dense |= {"mean": np.ones(8), "features": np.ones(24)}
    moved = field.copy()
    moved[:, 2, 3] += 5
    found = pictures_of(dense | {"map": moved}, dense, manifest)
    assert [one.name for one in found] == ["map", "patches", "depth"]
    first, second, depth = found
    assert picture(first.dense).shape == (8, 8, 3) and first.dense == second.dense, "they are the same on the grid"
    assert np.argwhere(picture(first.difference) > 0).tolist() == [[2, 3]] and first.most > 1
    assert second.most == 0 and second.reduced == second.dense
    grey = picture(depth.dense)
    assert max(grey.shape) == 160 and grey[0, 0] == 0 and grey[-1, -1] == 255


def test_a_page_is_one_file_without_scripts(digits: Path) -> None:
    text = (digits / "report.html").read_text("utf-8")
    found = Page(text)
    assert not found.tags("script") and not found.tags("link") and "http://" not in text and "https://" not in text
    assert all((image["href"] or "").startswith("data:image/png;base64,") for image in found.tags("image"))
    assert all((use["href"] or "").startswith("#image") for use in found.tags("use"))
    assert not re.findall(r"\son\w+=", text)
    assert "default-src 'none'" in text and "width=device-width" in text and "prefers-color-scheme: dark" in text
    assert len(text) < 100_000


def test_nothing_measured_is_said(digits: Path) -> None:
    words = page(digits).text
    assert all(text in words for text in ("Not proven yet", "Not measured: ", "Not measured yet"))


def test_markup_in_files_is_escaped(digits_copy: Path) -> None:
    manifest = read_manifest(digits_copy)
    hostile = replace(
        manifest,
        model=replace(manifest.model, title=MARKUP, timm=MARKUP),
        weights=replace(manifest.weights, detail=MARKUP),
        labels=[MARKUP] * 10,
        notes=[MARKUP],
        settings={MARKUP: MARKUP},
        tools={MARKUP: MARKUP},
        reference={"images": MARKUP},
        results={"parity": {MARKUP: {**_parity(), "problems": [MARKUP]}}},
    )
    write_manifest(hostile, digits_copy)
    write_report(digits_copy)
    found = page(digits_copy)
    assert not found.tags("script")
    assert found.text.count(MARKUP) > 10
    assert MARKUP not in (digits_copy / "report.html").read_text("utf-8")


def _parity() -> dict[str, object]:
    shares = dict.fromkeys(("top1_agreement", "kept_agreement", "max_abs_fraction_all"))
    return {"ok": False, "images": 2, "cosine": 0.5, "top1": None, **shares}


def test_the_manifest_lists_the_page(digits_copy: Path) -> None:
    entry = read_manifest(digits_copy).entry("report.html")
    assert (entry.role, entry.sha256) == ("report", file_sha256(digits_copy / "report.html"))
    (digits_copy / "report.html").write_text("old", "utf-8")
    write_report(digits_copy)
    assert read_manifest(digits_copy).entry("report.html").sha256 == file_sha256(digits_copy / "report.html")
    with staged(digits_copy):
        pass  # the page is no file of the user's, which would be refused


def test_a_page_of_the_users_is_never_replaced(digits_copy: Path) -> None:
    manifest = read_manifest(digits_copy)
    write_manifest(
        replace(manifest, files={n: e for n, e in manifest.files.items() if n != "report.html"}), digits_copy
    )
    (digits_copy / "report.html").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match=r"report\.html .*-o"):
        write_report(digits_copy)
    assert (digits_copy / "report.html").read_text("utf-8") == "mine"
    assert write_report(digits_copy, digits_copy.parent / "other.html").exists()
    assert "other.html" not in read_manifest(digits_copy).files
    with pytest.raises(OutputError, match=r"missing/x\.html: "):
        write_report(digits_copy, digits_copy / "missing" / "x.html")


def test_receivers_are_lines_between_the_middles() -> None:
    left, receivers = (
        [np.array([0, 5]), np.array([], int), np.array([3])],
        [np.array([1, -1]), np.array([], int), np.array([2])],
    )
    sample = Sample("x", np.zeros((8, 12, 3), np.uint8), left, receivers, {})
    found = make_map(sample, [2, 3])
    first, second = found.panels
    assert (first.layer, first.before, first.after, second.layer, second.before, second.after) == (0, 6, 4, 2, 4, 3)
    assert (first.lines, first.starts) == ("M2 2L6 2", "M2 2h0"), "the class token is no patch"
    assert (first.gone, first.leaving) == ("", "M0 0h4v4h-4zM8 4h4v4h-4z")
    assert second.gone == first.leaving


def test_large_images_are_jpeg() -> None:
    sample = Sample("x", np.zeros((224, 224, 3), np.uint8), [], None, {})
    assert make_map(sample, [14, 14]).image.startswith("data:image/jpeg;base64,")


def test_samples_of_the_pack_and_of_files_agree(digits: Path, model: Model) -> None:
    packed = samples_of_pack(model.reference(), model.manifest)
    assert [sample.facts["class"] for sample in packed] == ["0", "3", "6", "9"]
    with_files = samples_of_files(model, [SEVEN])[0]
    assert (with_files.name, with_files.facts, with_files.receivers) == ("000.png", {"model": "7"}, None)
    pack = read_reference(digits / REFERENCE_NAME)
    place = next(n for n, image in enumerate(pack.images) if np.array_equal(image, with_files.pixels))
    assert [sorted(ids) for ids in with_files.left] == [sorted(ids[place]) for ids in pack.propagated]


def test_without_receivers_labels_or_classes(digits_copy: Path) -> None:
    pack = read_reference(digits_copy / REFERENCE_NAME)
    write_reference(
        replace(pack, labels=None, dense_outputs=None, received_by=pack.propagated), digits_copy / REFERENCE_NAME
    )
    manifest = read_manifest(digits_copy)
    changed = digits_copy / REFERENCE_NAME
    entry = replace(manifest.entry(REFERENCE_NAME), sha256=file_sha256(changed), size=changed.stat().st_size)
    manifest = replace(manifest, files=manifest.files | {REFERENCE_NAME: entry}, labels=None)
    found = samples_of_pack(read_reference(changed), manifest)
    assert all(set(sample.facts) == {"model"} and sample.receivers is not None for sample in found)
    assert "a line leads to the patch" in render(manifest, found)


def test_results_without_a_distribution_and_in_another_form(digits: Path) -> None:
    times = {f"p{share}_ms": float(share) for share in (50, 90, 95, 99)}
    result = {**times, "batch": 1, "runs": 10, "throughput": 1.0, "ratio": 1.0, "threads": 2, "quantiles_ms": None}
    manifest = replace(read_manifest(digits), results={"latency": {"model.onnx": result}})
    assert "threads 2" in render(manifest, [])
    assert "Not known: " in render(manifest, []), "which tokens left"
    del result["p99_ms"]
    assert "threads 2" not in render(manifest, []), "left out"


def test_what_the_device_did_is_shown_once(digits: Path) -> None:
    manifest = read_manifest(digits)
    heat: dict[str, Any] = {"celsius": {"cpu": 81.0}, "mhz": {}, "problems": ["it was <throttled>"], "missing": []}
    beside: dict[str, Any] = {"conditions": heat, "joules": 0.25, "device": "GPU"}
    beside["placement"] = {"nodes": {"cuda": 9, "cpu": 2}, "fell_back": {"TopK": 2}}
    times: dict[str, Any] = {f"p{share}_ms": float(share) for share in (50, 90, 95, 99)}
    times |= {"batch": 1, "runs": 10, "throughput": 1.0, "ratio": 1.0, "quantiles_ms": None}
    latency = {"dense.onnx": times | beside, "model.onnx": times | beside}
    page = render(replace(manifest, results={"latency": latency}), [])
    assert page.count("cpu 81 °C") == page.count("it was &lt;throttled&gt;") == 1 < page.count("TopK 2") == len(latency)
    assert "model.onnx: 0.25 joules" in page
    latency["model.onnx"]["conditions"] = {"celsius": "hot"}
    assert "model.onnx: 0.25 joules" not in render(replace(manifest, results={"latency": latency}), []), "left out"


def dense_of(manifest: Manifest) -> Manifest:
    return replace(manifest, layers=[replace(layer, num_prop=0) for layer in manifest.layers])


def test_where_no_token_leaves(digits: Path) -> None:
    manifest = dense_of(read_manifest(digits))
    sample = Sample("x", np.zeros((32, 32, 3), np.uint8), [np.array([], int)] * 6, None, {})
    assert "No token leaves." in render(manifest, [sample])


def test_jinja_is_needed(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingPackageError, match=r"jinja2 .*'gtp-export\[report\]'"):
        render(read_manifest(digits), [])


def test_the_command(command: Command, digits_copy: Path, tmp_path: Path) -> None:
    ran = command("report", digits_copy)
    assert (ran.code, ran.last) == (0, f"next: open {digits_copy / 'report.html'} in a browser")
    assert f"wrote {digits_copy / 'report.html'} and its entry in model.json" in ran.out
    ran = command("report", digits_copy, "--images", SEVEN, "--threads", "1", "-o", tmp_path / "page.html", "--json")
    assert ran.code == 0 and '"size"' in ran.out
    assert "000.png" in (tmp_path / "page.html").read_text("utf-8")
    assert command("report", digits_copy, "--data", SEVEN.parent, "-q").code == 0
    assert len(page(digits_copy).tags("image")) == 4
    ran = command("report", digits_copy, "--data", SEVEN.parent, "--images", SEVEN)
    assert ran.code == 2 and "--images" in ran.error
    ran = command("report", digits_copy, "--threads", "1")
    assert ran.code == 2 and "--images or --data" in ran.error
    ran = command("report", tmp_path / "nothing")
    assert ran.code == 1 and "no manifest" in ran.error


def test_export_without_a_page(command: Command, tmp_path: Path) -> None:
    ran = command(
        "export",
        "digits",
        "--schedule",
        "steps:2",
        "--no-report",
        "--no-check",
        "--no-dense",
        "-o",
        tmp_path / "out",
        "-q",
    )
    assert ran.code == 0
    assert not (tmp_path / "out" / "report.html").exists()
