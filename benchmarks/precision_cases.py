"""What precision.py compares: precisions on runtimes, settings of GTP, and the files that they need."""

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cases import Choice
from folders import synthetic

from gtp_exporters import ExportOptions, QuantizeOptions, export, quantize
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.describe import write_graph
from gtp_exporters.graph.files import read
from gtp_exporters.graph.precision import to_precision
from gtp_models import GTPConfig, Recipe, Settings
from gtp_models.weights import outline
from gtp_runtime import Model, load
from gtp_runtime.manifest import read_manifest, write_manifest

DENSE, MODEL = "dense", "model"
CONVERTED = ("fp32", "fp16", "int8_weights", "int4_weights")


@dataclass(frozen=True)
class Case:
    """A precision on a runtime.

    Attributes:
        backend: the runtime.
        label: the precision as the page calls it.
        made: one of ``CONVERTED``, or the target of int8: the folder of the files.
        compute: what OpenVINO computes in.
    """

    backend: str
    label: str
    made: str
    compute: str | None = None

    def path(self, place: Path, name: str) -> Path:
        """Return the dense file or the reduced one."""
        return place / self.made / f"{name}.{'' if self.made in CONVERTED else 'int8.'}onnx"

    def load(self, path: Path) -> Model:
        """Load a file with one thread."""
        return load(path, self.backend, threads=1, **self.options)

    def in_fp32(self) -> "Case":
        """Return the case of float32 on the same runtime."""
        return Case(self.backend, "fp32", "fp32")

    @property
    def options(self) -> dict[str, str]:
        """Options of the backend."""
        return {} if self.compute is None else {"compute": self.compute}


CASES = (
    Case("onnxruntime", "fp32", "fp32"),
    Case("onnxruntime", "fp16", "fp16"),
    Case("onnxruntime", "int8", "onnxruntime"),
    Case("onnxruntime", "int8 weights", "int8_weights"),
    Case("onnxruntime", "int4 weights", "int4_weights"),
    Case("openvino", "fp32", "fp32"),
    Case("openvino", "bf16", "fp32", "bf16"),
    Case("openvino", "fp16", "fp16"),
    Case("openvino", "int8", "openvino"),
    Case("openvino", "int8 and bf16", "openvino", "bf16"),
)


@dataclass(frozen=True)
class Setting:
    """A form of GTP at a share of the dense model's MACs, and the folder of its files."""

    form: str
    keep: str
    place: Path

    @classmethod
    def of(cls, text: str, recipe: Recipe, folder: Path) -> "Setting":
        """Return the setting of "FORM:SHARE"."""
        form, _, keep = text.partition(":")
        return cls(form, keep, folder / f"{recipe.name} {form} {keep}")

    def settings(self, recipe: Recipe) -> Settings:
        """Return GTP's settings."""
        forms = {"measured": GTPConfig.measured, "paper": Choice(recipe, outline(recipe)).paper}
        return forms[self.form](keep=float(self.keep))


def chosen(precisions: str, backends: str) -> list[Case]:
    """Return the cases of the precisions and runtimes that are asked for."""
    names, runtimes = precisions.split(","), backends.split(",")
    return [case for case in CASES if case.backend in runtimes and case.label in names]


def make(recipe: Recipe, setting: Setting, given: argparse.Namespace, cases: Iterable[Case]) -> None:
    """Make the files that the cases need, in a folder for each form, but for those that are there; fp32 in any case."""
    for name in dict.fromkeys(["fp32", *(case.made for case in cases)]):
        place = setting.place / name
        if not (place / "model.json").exists():
            print(f"making {setting.place.name}, {name}", flush=True)
            if name == "fp32":
                options = ExportOptions(target="onnxruntime", trace=False, data=given.data)
                found = {"settings": setting.settings(recipe), "weights": given.weights, "options": options}
                export(recipe, place, check=False, **found)
            else:
                _derive(recipe, place, given)


def _derive(recipe: Recipe, place: Path, given: argparse.Namespace) -> None:
    """Make another form from the files in fp32."""
    half = place.with_name(f"{place.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(place.with_name("fp32"), half)
    if place.name in CONVERTED:
        _convert(half, place.name)
    else:
        images = _images(recipe, given, place.parents[1])
        options = QuantizeOptions(place.name, images, given.calib_size, given.calibration, gate=False)
        for report in quantize(half, options).reports:
            print(f"int8 for {place.name}: {report.file}", report.divergence, report.problems, flush=True)
    half.rename(place)


def _convert(place: Path, precision: str) -> None:
    """Write the graphs of an export in another precision."""
    manifest = read_manifest(place)
    files = dict(manifest.files)
    for name in (DENSE, MODEL):
        entry = files[f"{name}.onnx"]
        graph = to_precision(infer_shapes(read(place / f"{name}.onnx", entry.external_data)), precision)
        files |= write_graph(place / f"{name}.onnx", graph, entry.role, entry.method, entry.macs)
    write_manifest(replace(manifest, files=files), place)


def _images(recipe: Recipe, given: argparse.Namespace, folder: Path) -> Path | None:
    """Return the folder that int8 is calibrated on; None for the recipe's own."""
    if given.calib_data is not None or recipe.calibration is not None:
        return given.calib_data
    if given.weights != "random":
        raise SystemExit(f"{recipe.name} has no calibration images of its own: give --calib-data DIR")
    return synthetic(folder / "synthetic")
