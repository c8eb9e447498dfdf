"""The search for settings: what is tried, when it is given up, how it is kept, and what comes out of it."""

import hashlib
import json
import os
import random
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from artifacts import DIGITS, SEVEN, TINY, Command, python

from gtp_exporters.errors import LimitError
from gtp_exporters.fitting import images_of
from gtp_exporters.measuring.accuracy import Job, Judge, answer_shard, forget_pixels
from gtp_exporters.measuring.candidate import Candidate, Running
from gtp_exporters.measuring.choice import Limit, TuneOptions, beating, finalists, first_that_holds
from gtp_exporters.measuring.gate import GateReport
from gtp_exporters.measuring.graphs import Graphs, Source, forget, manifest_of, subject_of
from gtp_exporters.measuring.outcome import Outcome, write_outcome
from gtp_exporters.measuring.pages import SEARCHED, cells, shown
from gtp_exporters.measuring.result import Loss, Result, Timing, front
from gtp_exporters.measuring.search import Deadline, Estimator, Search, Timer, dominated, hopeless
from gtp_exporters.measuring.shards import Local, Workers, rungs, split
from gtp_exporters.measuring.space import make_space
from gtp_exporters.measuring.store import Store, working
from gtp_exporters.measuring.tune import SearchError, tune
from gtp_exporters.quantizing.search import QuantizationFailedError
from gtp_models import ConfigError, GTPConfig, load_recipe, make_settings
from gtp_models.methods.settings import ModelShape
from gtp_models.plan import model_shape
from gtp_models.recipes import Recipe
from gtp_runtime.errors import ImageError, OutputError
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.latency import Latency
from gtp_runtime.manifest import read_manifest
from gtp_runtime.messages import quiet

SHAPE = ModelShape((8, 8), 1, True, 96, (3,) * 6, 32)
NO_CLASS_TOKEN = replace(SHAPE, num_prefix=0, has_class_token=False)
FITTED_PLAN = [0, 9, 0, 12, 0, 20]  # of digits, 65 tokens
QUICK = ("--trials", "3", "--images", "64", "--threads", "1", "--no-int8")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """Nothing is run for its time: a file takes what ``Clock`` says, 10 ms for the dense model."""
    fake = Clock()
    monkeypatch.setattr("gtp_exporters.measuring.latency.time_files", fake.time_files)
    return fake


@pytest.fixture
def unexported(clock: "Clock", monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """Nothing is exported: the clock takes MACs for times, and says what is lost on images that were held out."""
    monkeypatch.setattr(Graphs, "graph", lambda graphs, candidate: clock.graph(graphs, candidate))  # noqa: PLW0108
    monkeypatch.setattr("gtp_exporters.measuring.search.graph_losses", clock.losses)
    plan = SimpleNamespace(info=SimpleNamespace(num_prop=FITTED_PLAN))
    monkeypatch.setattr("gtp_exporters.measuring.tune.fit_settings", lambda *_, **__: plan)
    return clock


class Clock:
    """Times files by their tokens: what leaves early saves most. ``factor`` and ``lies`` change that."""

    def __init__(self) -> None:
        self.factor = 1.0  # of the time of all that is not dense
        self.int8, self.lost = 0.5, 0.001  # of the time in int8, and nats that it loses
        self.refused = False  # by the gate of int8
        self.lies: list[float] = []  # ratios that are said in place of the true ones, one for each call
        self.calls: list[list[str]] = []
        self.quantised: list[Candidate] = []
        self.candidates: dict[Path, Candidate] = {}

    def time_files(self, timing: Any) -> list[Latency]:
        dense, *others = (self.share(path) for path in timing.files)
        ratios = [dense, *((self.lies.pop(0) if self.lies else other * self.factor) for other in others)]
        self.calls.append([str(path) for path in timing.files])
        pairs = zip(timing.files, ratios, strict=True)
        return [Latency(path.name, 1, 9, *[10 * ratio] * 5, 0.0, 1.0, ratio=ratio) for path, ratio in pairs]

    def graph(self, graphs: Graphs, candidate: Candidate) -> Path:
        path = graphs.place / hashlib.sha256(candidate.graph_key.encode()).hexdigest()
        if candidate.running.is_calibrated:
            assert graphs.is_gated and graphs.calibration is not None
            self.quantised.append(candidate)
            if self.refused:
                raise QuantizationFailedError("refused", [refusal()], [])
        self.candidates[path] = candidate
        return path

    def losses(self, files: Any, runnings: Any, images: ImageSet, *_: Any, **others: Any) -> list[Loss]:
        """On images that were held out: farther from dense, the more is saved."""
        ratios = [self.candidates[path].plan.ratio for path in files]
        ratios = [
            ratio - self.lost * self.candidates[path].running.is_calibrated
            for path, ratio in zip(files, ratios, strict=True)
        ]
        return [Loss(len(images), 1 - ratio, 0.0, 1.0, 0.9, dense_top1=0.9, top1_drop=0.0) for ratio in ratios]

    def share(self, path: Path) -> float:
        if path in self.candidates:
            candidate = self.candidates[path]
            return candidate.plan.ratio * (self.int8 if candidate.running.is_calibrated else 1)
        manifest = read_manifest(path.parent)
        amounts, tokens, left = manifest.num_prop, 65, []
        for amount in amounts:
            tokens -= amount
            left.append(tokens / 65)
        share = sum(left) / len(left) if left else 1.0
        return share * (self.int8 if ".int8." in path.name else 1)


def refusal() -> GateReport:
    return GateReport("model.int8.onnx", "images", Loss(48, 0.5), flips=0.4, cosine=0.9, problems=["too far"])


class Drawn:
    """A trial of Optuna's that draws at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self.random.choice(choices)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.random.uniform(low, high)


def result(trial: int | None, distance: float, ratio: float | None, drop: float | None = 0.0, **others: Any) -> Result:
    shares = (None, None) if drop is None else (drop / 100, 0.001)
    made: dict[str, Any] = {
        "name": "the recipe's default" if trial is None else f"trial {trial}",
        "method": "gtp",
        "settings": GTPConfig(num_prop=(3, 3)).to_dict(),
        "backend": "onnxruntime",
        "precision": "fp32",
        "num_prop": [3, 3],
        "macs": 80,
        "macs_ratio": 0.8,
        "total_ratio": 0.8,
        "estimate": 0.8,
        "rungs": [distance],
        "loss": Loss(100, distance, 0.1 * distance, 0.99, top1_drop=shares[0], top1_drop_se=shares[1]),
        "timing": None if ratio is None else Timing(10 * ratio, 10.0),
        "trial": trial,
    }
    return Result(**made | others)


DENSE = result(None, 0.0, 1.0, name="dense", method="dense", settings={"num_prop": 0}, num_prop=[0, 0], rungs=[0.0])


def drop_of(one: Result, points: float) -> Result:
    assert one.loss is not None
    return replace(one, loss=replace(one.loss, top1_drop=points / 100))


@pytest.mark.full
def test_digits_from_end_to_end(
    command: Command, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "found"
    ran = command("tune", "digits", "--max-drop", "50", *QUICK, "-o", place, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["ok"], found["trials"], found["search_images"]) == (True, 3, 64)
    timed = [one for one in found["results"] if one["ratio"] is not None]
    assert found["chosen"]["ratio"] == min(one["ratio"] for one in timed) < 1, "the fastest, by different times"
    assert found["dense"]["ratio"] == 1 and found["dense"]["distance"] == 0
    assert found["validated"]["chosen"]["images"] == 120, "those that were held out"
    assert {path.name for path in place.iterdir()} >= {"tune.jsonl", "tune.html", "tune.json", "recipe.yaml"}
    assert found["chosen"]["num_prop"] == list(num_prop_of(place / "recipe.yaml"))
    kept = [json.loads(line) for line in (place / "tune.jsonl").read_bytes().splitlines()]
    assert found["results"][2]["num_prop"] == next(line["value"] for line in kept if line.get("name") == "fitted")
    page = (place / "tune.html").read_text("utf-8")
    assert "<svg" in page and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert ", chosen" in page
    assert not (place / ".gtp-export" / "tune" / "graphs").exists(), "exports are removed"
    ran = command("export", place / "recipe.yaml", "--no-check", "--no-report", "-o", tmp_path / "exported")
    assert ran.code == 0, ran.err
    assert read_manifest(tmp_path / "exported").num_prop == found["chosen"]["num_prop"]
    ran = command("tune", "digits", "--max-drop", "1", "-o", place, "--images", "65", "--no-int8")
    assert (ran.code, "searched" in ran.error) == (1, True)
    monkeypatch.setattr("gtp_exporters.measuring.tune.describe_machine", lambda names: {"board": "another"})
    ran = command("tune", "digits", "--max-drop", "50", *QUICK, "-o", place)
    assert (ran.code, "device" in ran.error) == (1, True)


def search_digits(place: Path, limit: Limit, **options: Any) -> Outcome:
    chosen: dict[str, Any] = {"trials": 2, "images": 32, "running": Running("onnxruntime", {"threads": 1})}
    return tune(load_recipe("digits"), place, TuneOptions(limit, **chosen | {"int8": False} | options))


def test_each_plan_on_the_front_is_quantised_once_and_can_be_chosen(unexported: Clock, tmp_path: Path) -> None:
    searched = search_digits(tmp_path / "found", Limit(max_drop=100), trials=4)
    again = search_digits(tmp_path / "found", Limit(max_drop=100), trials=4, int8=True)
    plans = [(one.method, one.settings) for one in front(searched.results)]
    lowered = [one for one in again.results if one.precision == "int8"]
    assert sorted(map(str, ((one.method, one.settings) for one in lowered))) == sorted(map(str, plans))
    named = [candidate.name for candidate in unexported.quantised]
    assert {one.name for one in lowered} == set(named), "through Graphs.graph, which keeps what it made"
    assert again.chosen is not None and again.chosen.precision == "int8", "the fastest"
    assert again.chosen.ratio == pytest.approx(min(one.ratio for one in searched.results if one.timing) / 2)
    assert again.validated["chosen"].precision == "int8" and not again.problem
    assert {one.identity for one in lowered} <= {one.identity for one in again.front}, "each is twice as fast"
    table = " ".join(one.name for one in again.shown)
    assert all(one.name in table for one in lowered)
    resumed = search_digits(tmp_path / "found", Limit(max_drop=100), trials=4, int8=True)
    assert [one for one in resumed.results if one.precision == "int8"] == lowered, "kept"


def test_dense_in_int8_can_be_the_nearest_within_a_latency(unexported: Clock, tmp_path: Path) -> None:
    found = search_digits(tmp_path / "found", Limit(latency_ms=6.0), trials=4, int8=True)
    assert found.chosen is not None and (found.chosen.method, found.chosen.precision) == ("dense", "int8")
    assert found.chosen.distance == pytest.approx(0.001) and found.validated["chosen"].ratio == pytest.approx(0.5)
    assert not list((tmp_path / "found").glob("*.yaml")), "the dense model needs no recipe"
    unexported.lost = 0.9
    far = search_digits(tmp_path / "far", Limit(latency_ms=9.5), trials=4, int8=True)
    assert far.chosen is not None and far.chosen.precision == "fp32", "int8 loses more here"


def test_a_refused_gate_is_a_row(unexported: Clock, tmp_path: Path) -> None:
    unexported.refused = True
    found = search_digits(tmp_path / "found", Limit(max_drop=100), int8=True)
    assert found.chosen is not None and found.chosen.precision == "fp32" and not found.problem
    assert found.refused and all("too far" in one.why for one in found.refused)
    rows = cells(shown(SEARCHED, found.shown), found.shown)
    assert [row for row in rows if "too far" in row[-1]] == rows[-len(found.refused) :]


def test_int8_is_left_out_where_nothing_can_be_calibrated(unexported: Clock, tmp_path: Path) -> None:
    recipe = replace(load_recipe("digits"), calibration=None)
    running = Running("onnxruntime", {"threads": 1})
    options = TuneOptions(Limit(max_drop=100), images=16, trials=1, running=running)
    found = tune(recipe, tmp_path / "found", options)
    assert not unexported.quantised and any("--calib-data" in note for note in found.notes)
    with pytest.raises(LimitError, match="calib_data"):
        tune(recipe, tmp_path / "none", replace(options, calib_data=DIGITS / "calibration", int8=False))
    with pytest.raises(ImageError):
        tune(recipe, tmp_path / "none", replace(options, calib_data=tmp_path))
    tune(recipe, tmp_path / "other", replace(options, calib_data=DIGITS / "calibration"))
    assert unexported.quantised


def test_int8_ends_with_the_time(unexported: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter((False, True))  # one is tried, to see whether images and backend can
    monkeypatch.setattr(Deadline, "is_over", property(lambda deadline: next(ends, True)))
    monkeypatch.setattr(Deadline, "check", lambda deadline: None)
    found = search_digits(tmp_path / "found", Limit(max_drop=100), int8=True)
    assert [one.name for one in found.results if one.precision == "int8"] == ["dense, int8"]
    assert any("resume" in note for note in found.notes)


@pytest.mark.full
def test_digits_in_int8_from_end_to_end(command: Command, clock: Clock, tmp_path: Path) -> None:
    ran = command("tune", "digits", "--max-drop", "50", "--trials", 1, "--images", 64, "-o", tmp_path / "found")
    assert ran.code == 0, ran.err
    chosen = json.loads((tmp_path / "found" / "tune.json").read_text("utf-8"))["chosen"]
    assert chosen["precision"] == "int8" and chosen["distance"] > 0
    ran = command(*shlex.split(ran.last)[2:], "--no-check", "--no-report", "-o", tmp_path / "exported")
    assert ran.code == 0, ran.err
    manifest = read_manifest(tmp_path / "exported")
    assert manifest.num_prop == chosen["num_prop"] and "model.int8.onnx" in manifest.files


def test_dense_is_a_candidate(unexported: Clock, tmp_path: Path) -> None:
    found = search_digits(tmp_path / "found", Limit(latency_ms=20.0))
    assert found.chosen is not None and found.is_dense and found.problem == "", "it keeps the budget and loses nothing"
    assert found.trials == 0 and found.notes, "nothing nearer to dense can be found, which is said"
    assert not (tmp_path / "found" / "recipe.yaml").exists()
    assert "dense, chosen" in [one.name for one in found.shown]


def test_the_choice_within_a_latency_is_the_nearest_to_dense(unexported: Clock, tmp_path: Path) -> None:
    found = search_digits(tmp_path / "found", Limit(latency_ms=9.5), trials=4)
    assert found.chosen is not None and found.chosen.timing is not None
    within = [one for one in found.results if one.timing is not None and one.timing.p50_ms <= 9.5]
    assert found.chosen.distance == min(one.distance for one in within) and found.chosen.ratio < 1
    assert any("chosen" in one.name for one in found.shown), "it is always in its table"


def test_what_is_slower_than_dense_is_never_chosen(unexported: Clock, tmp_path: Path) -> None:
    unexported.factor = 1.6
    found = search_digits(tmp_path / "found", Limit(max_drop=100))
    assert found.chosen is None and found.problem and found.nearest is not None
    again = search_digits(tmp_path / "again", Limit(latency_ms=10.5))
    assert again.is_dense and not again.problem, "dense keeps it, though all trials are slower"


def test_a_lucky_timing_is_taken_again(unexported: Clock, tmp_path: Path) -> None:
    unexported.lies = [0.1]
    found = search_digits(tmp_path / "found", Limit(max_drop=100), trials=1)
    assert found.default.timing is not None and found.default.ratio > 0.5
    assert not unexported.lies and unexported.calls[0] == unexported.calls[1]


def test_a_search_without_trials_fails_and_says_so(unexported: Clock, tmp_path: Path, command: Command) -> None:
    with pytest.raises(SearchError):
        search_digits(tmp_path / "found", Limit(max_drop=1), seconds=1e-6)
    ran = command("tune", "digits", "--max-drop", 1, "--timeout", "0.001ms", "-o", tmp_path / "other")
    assert (ran.code, "--timeout" in ran.error) == (1, True)
    assert not list((tmp_path / "other").glob("*.yaml"))


def test_the_time_is_looked_at_between_trials_and_exports(unexported: Clock, tmp_path: Path) -> None:
    class Ending(Deadline):
        looks = 30

        @property
        def is_over(self) -> bool:
            self.looks -= 1
            return self.looks < 0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gtp_exporters.measuring.tune.Deadline", Ending)
        found = search_digits(tmp_path / "found", Limit(max_drop=100), trials=1000)
    assert 0 < found.trials < 30 and found.chosen is not None


def num_prop_of(path: Path) -> Any:
    found = load_recipe(str(path)).settings().num_prop
    return (found,) * 6 if isinstance(found, int) else found


@pytest.mark.parametrize(
    ("limit", "code", "named"),
    [
        (Limit(latency_ms=0.001), 5, "trial 1"),  # the fastest
        (Limit(max_drop=0.0), 3, "trial 2"),  # the nearest
        (Limit(max_drop=0.2), 3, "--max-drop"),  # on images that were held out
        (Limit(latency_ms=8), 5, "--latency-budget"),  # timed again
        (Limit(max_drop=4), 0, ""),
    ],
)
def test_a_limit_that_is_not_kept_has_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: Limit, code: int, named: str
) -> None:
    def found(recipe: Recipe, output: Path, options: TuneOptions, **others: Any) -> Outcome:
        made = outcome(recipe, output, options.limit)
        write_outcome(made)
        return made

    monkeypatch.setattr("gtp_exporters.measuring.tune.tune", found)
    wanted = (
        ("--max-drop", limit.max_drop) if limit.latency_ms is None else ("--latency-budget", f"{limit.latency_ms}ms")
    )
    ran = command("tune", "digits", *wanted, "-o", tmp_path)
    assert ran.code == code, ran.err
    assert named in ran.error
    assert (tmp_path / "recipe.yaml").exists() == (code == 0)
    assert json.loads((tmp_path / "tune.json").read_text("utf-8"))["ok"] == (code == 0)
    assert all(one in ran.out for one in ("trial 1", "trial 2", "dense", "the recipe's default"))
    wrote = "gtp-export export" if code == 0 else "open"
    assert ran.last.startswith(f"next: {wrote} {tmp_path}")


@pytest.mark.parametrize(
    ("options", "precision", "words"),
    [
        (["--weights", "random", "--seed", "3", "-b", "2"], "fp32", ["RECIPE", "--weights", "random", "--seed", "3"]),
        (["-b", "2", "--calib-data", "my images"], "int8", ["RECIPE"]),
        (["-b", "2", "--img-size", "64x32", "--num-classes", "7"], "dense", ["digits", "--img-size", "64x32"]),
    ],
)
def test_the_next_command_makes_the_choice(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], precision: str, words: Any
) -> None:
    def found(recipe: Recipe, output: Path, options: TuneOptions, **others: Any) -> Outcome:
        made = outcome(load_recipe("digits"), output, options.limit)
        chosen = made.dense if precision == "dense" else made.chosen
        assert chosen is not None
        return replace(made, chosen=replace(chosen, precision="int8" if precision == "int8" else "fp32"))

    monkeypatch.setattr("gtp_exporters.measuring.tune.tune", found)
    ran = command("tune", "digits", "--latency-budget", "9ms", "-o", tmp_path / "my search", *options)
    assert ran.code == 0, ran.err
    recipe = str(tmp_path / "my search" / "recipe.yaml")
    typed = shlex.split(ran.last)
    assert typed[:3] == ["next:", "gtp-export", "export"]
    assert typed[3 : 3 + len(words)] == [recipe if word == "RECIPE" else word for word in words]
    assert "2" in typed[typed.index("--batch") :]
    int8 = ["--precision", "int8", "--target", "onnxruntime", "--calib-data", "my images"]
    assert typed[-6:] == int8 if precision == "int8" else "--precision" not in typed
    assert ("--method" in typed, "--num-classes" in typed) == (precision == "dense",) * 2


def test_what_cannot_be_searched_is_refused_without_torch() -> None:
    code = """
import sys
from gtp_exporters.measuring.choice import Limit, TuneOptions
from gtp_export.cli import main
TuneOptions(Limit(max_drop=1))
sys.argv = ["gtp-export", "tune", "digits", "--max-drop", "1", "--precisions", "fp31", "-o", "nowhere"]
try:
    main()
except SystemExit as ended:
    print(ended.code, "torch" in sys.modules)
"""
    assert python(code).last == "2 False"


def outcome(recipe: Recipe, place: Path, limit: Limit) -> Outcome:
    config = GTPConfig.measured(num_prop=(0, 9, 0, 9, 0, 0)).to_dict()
    other = GTPConfig.measured(num_prop=(0, 8, 0, 8, 0, 0)).to_dict()
    default = result(None, 0.01, 0.9, drop=0.1)
    timed = [DENSE, default, result(1, 0.1, 0.5, drop=3.0, settings=other), result(2, 0.005, 0.8, settings=config)]
    chosen = next(iter(limit.ranked(timed)), None)
    held_out = Loss(50, 0.01, 0.001, 0.98, 0.5, dense_top1=0.52, top1_drop=0.02, top1_drop_se=0.005)
    validated = replace(timed[3], loss=held_out, timing=Timing(8.5, 10.0))
    return Outcome(
        recipe=recipe,
        directory=place,
        limit=limit,
        running=Running("onnxruntime", {"threads": 1}),
        search_images=100,
        origin="images",
        trials=2,
        results=timed,
        front=front(timed),
        chosen=chosen,
        better=beating(timed, default)[0],
        nearest=None if chosen else limit.nearest(timed),
        validated=dict.fromkeys(("default", "chosen", "better"), validated),
    )


def test_a_search_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "images")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {os.fspath(Path(__file__).parent)!r})
from test_tune import search_tiny
search_tiny(Path({os.fspath(tmp_path)!r}), Path({os.fspath(folder)!r}), kill_after=2)
"""
    ran = python(code)
    assert ran.code == -signal.SIGKILL, ran.err
    with (tmp_path / "tune.jsonl").open("ab") as file:
        file.write(b'{"name": "trial 9", "va')  # cut off
    answered = {path: path.stat().st_mtime_ns for path in (tmp_path / "dense").iterdir()}
    search = search_tiny(tmp_path, folder, kill_after=None)
    assert {path: path.stat().st_mtime_ns for path in answered} == answered, "the dense model's answers are kept"
    assert [found.trial for found in search.trials] == list(range(6)), "one was under way, and was done again"
    assert len({found.identity for found in search.results}) == 8, "repeats are no trials"
    assert all(found.timing is not None or found.why for found in search.results)
    judged = {found.loss.images for found in search.trials if found.loss}
    assert max(judged) < len(search.judge.images.search), "some cannot be read"


def search_tiny(place: Path, folder: Path, kill_after: int | None, workers: Workers | None = None) -> Search:
    """Search on a tiny model whose latency is its MACs, and be killed at a timing."""
    source = Source(TINY, "random")
    subject = subject_of(source)
    images = split(find_image_set(folder, manifest_of(subject)))
    workers = workers or Local()
    place.mkdir(exist_ok=True)
    judge = Judge(source, images, workers, place / "dense")
    graphs = Graphs(source, place / "graphs")
    dense = graphs.candidate("dense", make_settings("dense"), Running("onnxruntime"))
    timer = Counted(graphs, dense, 0.0, workers)
    timer.left = kill_after
    store = Store(place / "tune.jsonl", {})
    base = [replace(DENSE, rungs=[0.0] * 2), result(None, 0.01, 0.99)]
    space = make_space(model_shape(subject.model), 4, ("fp32",))
    search = Search(store, space, judge, timer, Limit(90), base, 0)
    search.run(6, Deadline(None), quiet)
    return search


class Counted(Timer):
    """Takes the ratio of MACs for that of latency; the last of so many measurements kills the process."""

    left: int | None = None

    def time(self, candidate: Candidate) -> Timing:
        if self.left is not None:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return Timing(candidate.plan.ratio, 1.0)


@pytest.mark.full
def test_a_whole_search_is_killed_and_gone_on_with(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "images")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {os.fspath(Path(__file__).parent)!r})
from test_tune import Killed, run_tiny
run_tiny(Path({os.fspath(tmp_path / "found")!r}), Path({os.fspath(folder)!r}), Killed(after=2))
"""
    ran = python(code)
    assert ran.code == -signal.SIGKILL, ran.err
    found = run_tiny(tmp_path / "found", folder, Killed(after=1000))
    assert found.trials == 4
    assert len({one.name for one in found.results}) == len(found.results) == 6
    assert {path.name for path in (tmp_path / "found").iterdir()} >= {"tune.html", "tune.json", "tune.jsonl"}


class Killed(Local):
    """Kills its process instead of the last of so many timings."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_device(self, function: Any, item: Any) -> Any:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(item)


def run_tiny(place: Path, folder: Path, workers: Workers) -> Outcome:
    running = Running("onnxruntime", {"threads": 1})
    options = TuneOptions(Limit(max_drop=100), folder, trials=4, int8=False, running=running, timing=0.0)
    return tune(TINY, place, options, weights="random", workers=workers)


@pytest.mark.full
def test_features_are_searched_within_a_distance(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "images")
    running = Running("onnxruntime", {"threads": 1})
    given: dict[str, Any] = {"output": "features", "trials": 2, "int8": False, "running": running, "timing": 0.0}
    options = TuneOptions(Limit(max_distance=10.0), folder, **given)
    found = tune(TINY, tmp_path / "found", options, weights="random")
    assert found.trials == 2
    losses = [one.loss for one in found.results if one.loss]
    assert {one.metric for one in losses} == {"relative error"} and {one.quality for one in losses} == {"k-NN top-1"}
    assert all(len(one.objectives) == 3 for one in found.results if one.timing)
    page = (tmp_path / "found" / "tune.html").read_text("utf-8")
    assert "relative error" in page and "nats" not in page
    again = tune(TINY, tmp_path / "found", options, weights="random")
    assert [one.loss for one in again.results[2:]] == [one.loss for one in found.results[2:]], "it is resumed"


def test_points_of_top1_need_classes(tmp_path: Path) -> None:
    options = TuneOptions(Limit(max_drop=1.0), tiny_images(tmp_path / "images"), output="map", int8=False)
    with pytest.raises(LimitError, match="max-distance"):
        tune(TINY, tmp_path / "found", options, weights="random")


def tiny_images(folder: Path) -> Path:
    for digit in range(5):
        (folder / str(digit)).mkdir(parents=True)
        for path in sorted((DIGITS / "images" / str(digit)).iterdir())[:6]:
            (folder / str(digit) / path.name).write_bytes(path.read_bytes())
    for name in ("000_broken.png", "zzz_broken.png"):  # one of them is held out at most
        (folder / "4" / name).write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("shape", [SHAPE, NO_CLASS_TOKEN])
def test_what_is_proposed_fits_the_model(shape: ModelShape) -> None:
    space = make_space(shape, 8, ("fp32",))
    presets = set()
    for seed in range(200):
        settings = space.propose(Drawn(seed)).settings
        assert isinstance(settings.num_prop, tuple)
        assert 0 <= sum(settings.num_prop) < shape.patches
        assert min(settings.num_prop) >= 0
        settings.check(shape)
        assert not set(settings.unused()) & {"alpha", "selection"} or settings.propagation == "MergeNorm"
        presets.add(settings.propagation)
    assert presets == {"GraphProp", "MergeNorm"}
    assert all("CLSAttn" not in name for name in space.selections) or shape.has_class_token
    assert space.alignments == (1, 4)


class Said:
    """A trial of Optuna's that draws what was enqueued."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        assert self.parameters[name] in choices
        return self.parameters[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        assert low <= self.parameters[name] <= high
        return int(self.parameters[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        assert low <= self.parameters[name] <= high
        return float(self.parameters[name])


@pytest.mark.parametrize("fitted", [(0, 9, 0, 12, 0, 20), (5, 0, 0, 0, 0, 0), (5, 7, 1, 0, 0, 30), (9, 0, 8, 4, 0, 40)])
def test_the_first_trial_is_the_fitted_plan_and_others_are_scaled(fitted: tuple[int, ...]) -> None:
    space = make_space(SHAPE, 8, ("fp32",), fitted)
    plans = [space.propose(Said(start)).settings for start in space.starts()]
    assert (plans[0].num_prop, plans[0].propagation) == (fitted, "MergeNorm")
    totals = [sum(plan.num_prop) for plan in plans[1:3]]  # type: ignore[arg-type]
    assert totals[0] <= sum(fitted) <= totals[1] and all(amount < 64 for amount in totals)
    assert len(space.starts()) == 3 + len(make_space(SHAPE, 8, ("fp32",)).starts())


def test_a_trial_draws_layers_and_amounts() -> None:
    drawn = [make_space(SHAPE, 8, ("fp32",)).propose(Drawn(seed)).settings.num_prop for seed in range(60)]
    patterns = {tuple(amount > 0 for amount in amounts) for amounts in drawn}  # type: ignore[union-attr]
    assert len(patterns) > 20, "any layers, not only runs of them"


def test_a_search_starts_from_the_fitted_plan(unexported: Clock, tmp_path: Path) -> None:
    found = search_digits(tmp_path / "found", Limit(max_drop=100), trials=1)
    assert list(found.results[2].num_prop) == FITTED_PLAN


def test_images_that_cannot_be_read_are_not_fitted_on(tmp_path: Path) -> None:
    subject = subject_of(Source(TINY, "random"))
    images = find_image_set(tiny_images(tmp_path / "images"), manifest_of(subject))
    assert len(images_of(subject, images, "a folder").images) == len(images) - 2
    broken = images.part(np.array([index for index in range(len(images)) if "broken" in images.name(index)]))
    with pytest.raises(ConfigError):
        images_of(subject, broken, "a folder")


def test_without_a_fitted_plan_a_search_says_so(
    unexported: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ConfigError("too few images")

    monkeypatch.setattr("gtp_exporters.measuring.tune.fit_settings", fails)
    found = search_digits(tmp_path / "found", Limit(max_drop=100), trials=1)
    assert any("too few images" in note for note in found.notes) and found.trials == 1


def test_sparsity_is_tried_where_tensorrt_can_sort_it() -> None:
    assert make_space(SHAPE, 8, ("fp32",)).sparsities[-1] == 0.5
    large = replace(SHAPE, grid=(14, 14))
    assert make_space(large, 8, ("fp32",)).sparsities == (1.0,)


def test_images_that_are_held_out_are_not_searched() -> None:
    names = np.array([f"{digit}\0{number:02}.png".encode() for digit in range(3) for number in range(20)])
    images = ImageSet(Path("images"), names, np.repeat(np.arange(3, dtype=np.int32), 20))
    parts = split(images, seed=1)
    assert (len(parts.search), len(parts.held_out)) == (40, 20)
    assert not set(parts.search.names) & set(parts.held_out.names)
    assert set(parts.search.classes[:12]) == {0, 1, 2}, "mixed"
    shards = [*parts.shards(0, 10), *parts.shards(10, 40)]
    assert [len(shard.names) for shard in shards] == [10, 22, 8]
    assert b"".join(name for shard in shards for name in shard.names) == b"".join(parts.search.names)
    few = split(images, limit=5)
    assert (len(few.search), len(few.held_out), set(few.held_out.classes)) == (5, 10, {0, 1, 2})
    with pytest.raises(ImageError, match="11"):
        split(ImageSet(Path("images"), names[:11]))


def test_rungs_grow() -> None:
    assert rungs(40) == [40]
    assert rungs(240) == [64, 240]
    assert rungs(6667) == [64, 256, 1024, 6667]


def test_a_trial_without_hope_is_given_up() -> None:
    timed = [result(None, 0.01, 0.9), result(1, 0.001, 0.7)]
    slow = result(2, 0.1, None, estimate=0.8)
    assert "trial 1" in hopeless(slow, timed, 0.01, Limit(latency_ms=9))
    assert not hopeless(slow, timed, 0.2, Limit(latency_ms=9)), "the estimate is not that sure"
    assert not hopeless(replace(slow, estimate=0.6), timed, 0.0, Limit(5.0)), "it may be faster"
    assert "--max-drop" in hopeless(drop_of(replace(slow, estimate=0.1), 3.0), timed, 0.0, Limit(1.0))
    assert "--max-distance" in hopeless(replace(slow, estimate=0.1), timed, 0.0, Limit(max_distance=0.05))
    assert "trial 1" in dominated(slow, timed, 0.01)
    assert not dominated(replace(slow, estimate=0.71), timed, 0.02)
    assert "dense" in dominated(replace(slow, estimate=1.1), [DENSE], 0.02), "what is slower than dense is no use"


def test_the_front_and_the_choice() -> None:
    default = result(None, 0.01, 0.9, drop=0.5)
    fast, middle, safe = result(1, 0.1, 0.5, drop=3.0), result(2, 0.005, 0.8), result(3, 0.0001, 0.97)
    worse = result(4, 0.2, 0.85, drop=3.0)
    timed = [DENSE, default, fast, middle, safe, worse]
    assert front(timed) == [fast, middle, safe, DENSE]
    lucky, slow = result(5, 0.006, 0.81, drop=-0.4), result(6, 0.0, 1.02)
    assert front([*timed, lucky, slow]) == [fast, middle, safe, DENSE], "a gain is no drop; dense beats what is slower"
    assert beating(timed, default) == [middle]
    assert Limit(max_drop=0.3).ranked(timed)[0] is middle
    assert Limit(max_drop=5).ranked(timed)[0] is fast
    assert Limit(latency_ms=9.8).ranked(timed)[0] is safe
    assert Limit(latency_ms=6).ranked(timed)[0] is fast
    assert Limit(latency_ms=10).ranked(timed)[0] is DENSE
    assert slow not in Limit(latency_ms=20).ranked([slow, DENSE])
    assert not Limit(latency_ms=1).ranked(timed)
    assert Limit(latency_ms=1).nearest(timed) is fast
    assert not Limit(max_drop=0.01).ranked(timed), "the standard error counts"
    assert Limit(max_drop=0.01).nearest(timed) is safe


def test_the_best_of_the_search_are_timed_again() -> None:
    default = result(None, 0.01, 0.9, drop=0.5)
    others = [settings_of(result(number, 0.001 * number, 0.9 - 0.01 * number), number) for number in range(1, 9)]
    same = replace(others[-1], trial=20)
    slow = settings_of(result(30, 0.5, 0.99), 30)
    best = finalists([default, *others, slow, same], Limit(max_drop=0.3), default)
    assert [found.trial for found in best] == [None, 8, 7, 6, 5], "those that hold the limit beat the default as well"
    assert [found.trial for found in finalists([default, slow], Limit(max_drop=0.1), default)] == [None, 30]
    fast = settings_of(result(31, 0.02, 0.5), 31)
    held = finalists([default, fast], Limit(max_drop=5), default)
    assert [found.trial for found in held] == [None, 31], "the default stays the first, though it is among the best"
    nothing = finalists([default, slow], Limit(latency_ms=1), default)
    assert [found.trial for found in nothing] == [None], "the fastest, where nothing holds"


def test_the_first_choice_that_holds_on_other_images_is_taken() -> None:
    asked: list[int | None] = []

    def holds(one: Result) -> bool:
        asked.append(one.trial)
        return one.trial == 2

    results = [result(number, 0.1, 0.5) for number in range(1, 4)]
    assert first_that_holds(results, holds) is results[1]
    assert asked == [1, 2], "the third is not evaluated"
    assert first_that_holds(results, lambda one: False) is results[0]
    assert first_that_holds([], holds) is None
    slow, lossy = result(1, 0.1, 0.8), result(2, 0.1, 0.6)
    assert not slow.is_better(lossy) and not lossy.is_better(slow), "equally lossy"
    assert result(3, 0.001, 0.6).is_better(slow)


def settings_of(found: Result, number: int) -> Result:
    return replace(found, settings=GTPConfig(num_prop=(number, 3)).to_dict())


def test_answers_of_another_question_are_not_used(tmp_path: Path) -> None:
    source, folder = Source(TINY, "random"), tiny_images(tmp_path / "images")
    images = split(find_image_set(folder, manifest_of(subject_of(source))))
    one, two = (Judge(source, images, Local(), tmp_path / "dense", question) for question in ("one", "two"))
    shards = images.shards(0, 8)
    assert one._name(shards[0]) != two._name(shards[0])
    job = Job(-1, source, None, shards[0])
    before = answer_shard(job)
    for name in shards[0].names:
        path = folder / os.fsdecode(name.replace(b"\0", b"/"))
        path.write_bytes(SEVEN.read_bytes())
    forget()
    forget_pixels()
    after = answer_shard(job)
    assert len(after.places) >= len(before.places)
    assert np.ptp(after.outputs["logits"], axis=0).max() < 1e-4, "all of them are the same image now"


def test_without_classes_the_drop_is_bounded_by_the_answers_that_change() -> None:
    found = result(1, 0.01, 0.8, drop=None)
    assert found.objectives == (0.01, 0.8)
    assert found.loss is not None and found.loss.points == pytest.approx(1.0)
    assert Limit(max_drop=3).holds(found) and not Limit(max_drop=1).holds(found)


def test_latency_is_estimated_from_what_was_measured() -> None:
    estimator = Estimator(("fp32",))
    new = result(9, 0.1, None, total_ratio=0.6)
    assert estimator.estimate(new) == pytest.approx(0.6), "the ratio of MACs at first"
    for number, share in enumerate((0.9, 0.8, 0.7, 0.5)):
        estimator.learn(result(number, 0.1, share + 0.1, total_ratio=share))
    assert estimator.estimate(new) == pytest.approx(0.7, abs=0.02)


def test_a_store_is_kept_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "tune.jsonl"
    store = Store(path, {"model": "one"})
    store.keep_results("trial 0", [result(0, 0.1, 0.8)])
    assert not store.is_resumed
    with path.open("ab") as file:
        file.write(b'{"name": "tri')  # and killed
    again = Store(path, {"model": "one"})
    assert again.is_resumed and again.results("trial 0") == [result(0, 0.1, 0.8)] and again.results("trial 1") is None
    again.keep_results("trial 1", [result(1, 0.1, None)])
    assert list(Store(path, {"model": "one"}).values) == ["trial 0", "trial 1"]
    with pytest.raises(OutputError, match="model"):
        Store(path, {"model": "two"})
    assert Store(path, {"model": "two"}, is_replaced=True).values == {}
    for content in (b'"nothing"\n{}\n', b"a line of the user's", b"[1]\n"):
        path.write_bytes(content)
        with pytest.raises(OutputError):
            Store(path, {"model": "one"})
        assert path.read_bytes() == content
    path.write_bytes(b"")
    assert Store(path, {"model": "one"}).values == {}
    path.write_bytes(path.read_bytes()[:10])
    assert Store(path, {"model": "one"}).values == {}, "killed while the first line was written"


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ((), 2, "--latency-budget"),
        (("--max-drop", "1", "--latency-budget", "2ms"), 2, "--max-drop"),
        (("--latency-budget", "20kg"), 2, "--latency-budget"),
        (("--latency-budget", "0ms"), 2, "--latency-budget"),
        (("--max-drop", "1", "--timeout", "2 days"), 2, "--timeout"),
        (("--max-drop", "inf"), 2, "--max-drop"),
        (("--max-drop", "1", "--class-order", "timm"), 2, "--class-order needs --data DIR"),
        (("--max-drop", "1", "--precisions", "fp32,int8"), 2, "int8"),
        (("--max-drop", "1", "--backend", "tensorrt"), 2, "tensorrt"),
        (("--max-drop", "1", "--compute", "bf16"), 2, "compute"),
        (("--max-drop", "1", "--data", "nosuch"), 1, "nosuch"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, named: str
) -> None:
    ran = command("tune", "digits", *arguments, "-o", tmp_path / "found")
    assert ran.code == code, ran.err
    assert named in ran.error
    assert not (tmp_path / "found").exists()


def test_other_files_are_not_touched(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    ran = command("tune", "digits", "--max-drop", "1", "-o", tmp_path)
    assert (ran.code, "notes.txt" in ran.error) == (1, True)
    assert (tmp_path / "notes.txt").read_text("utf-8") == "mine"
    assert "--data" in command("tune", "deit_ti", "--max-drop", "1", "-o", "x").error


def test_exports_are_removed_however_a_search_ends(tmp_path: Path, unexported: Clock) -> None:
    def stop(task: str, share: float | None = None) -> None:
        if task.startswith("searching"):
            raise KeyboardInterrupt

    options = TuneOptions(Limit(max_drop=1), images=16, trials=1, running=Running("onnxruntime", {"threads": 1}))
    with pytest.raises(KeyboardInterrupt):
        tune(load_recipe("digits"), tmp_path / "found", options, progress=stop)
    assert [path.name for path in (tmp_path / "found" / ".gtp-export" / "tune").iterdir()] == ["dense"]
    with working(tmp_path / "other", "tune"):
        pass
    assert not (tmp_path / "other").exists(), "nothing is left of what did nothing"


def test_options_are_checked() -> None:
    with pytest.raises(LimitError, match="max_drop"):
        TuneOptions(Limit())
    with pytest.raises(LimitError, match="trials=0"):
        TuneOptions(Limit(max_drop=1), trials=0)
    assert isinstance(load_recipe("digits"), Recipe)
