"""The search for settings: what is tried, when it is given up, how it is kept, and what comes out of it."""

import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import DIGITS, SEVEN, TINY, Command, python

from gtp_exporters.errors import LimitError, OutputError
from gtp_exporters.tuning.estimating import Estimator
from gtp_exporters.tuning.finishing import first_that_holds
from gtp_exporters.tuning.front import Limit, beating, finalists, front
from gtp_exporters.tuning.judging import Judge
from gtp_exporters.tuning.options import TuneOptions
from gtp_exporters.tuning.outcome import Outcome, write_outcome
from gtp_exporters.tuning.results import Loss, Result, Timing, identity, timed_again
from gtp_exporters.tuning.run import ANSWERS, _work, described, tune
from gtp_exporters.tuning.rungs import dominated, hopeless, rungs
from gtp_exporters.tuning.scoring import Job, ModelSource, answer_shard, forget, subject_of
from gtp_exporters.tuning.search import Search
from gtp_exporters.tuning.shards import split
from gtp_exporters.tuning.space import make_space
from gtp_exporters.tuning.storage import Journal
from gtp_exporters.tuning.timing import InTurn, Running, Timer, time_files
from gtp_exporters.tuning.validation import Validated
from gtp_exporters.tuning.workers import Local, Workers
from gtp_models import GTPConfig, load_recipe
from gtp_models.methods.settings import ModelShape
from gtp_models.plan import model_shape
from gtp_models.recipes import Recipe
from gtp_runtime.accuracy import Accuracy
from gtp_runtime.errors import ImageError
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.latency import Latency
from gtp_runtime.manifest import read_manifest
from gtp_runtime.progress import quiet

SHAPE = ModelShape((8, 8), 1, True, 96, (3,) * 6, 32)
NO_CLASS_TOKEN = replace(SHAPE, num_prefix=0, has_class_token=False)
QUICK = ("--trials", "1", "--images", "64", "--threads", "1")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are timed, but what is timed counts for nothing: the dense baseline takes 10 ms, all others 8."""
    monkeypatch.setattr("gtp_exporters.tuning.timing.SECONDS", 0.0)
    monkeypatch.setattr("gtp_exporters.tuning.validation.SECONDS", 0.0)
    monkeypatch.setattr("gtp_exporters.tuning.timing.time_files", same_times)


def same_times(timing: InTurn) -> list[Latency]:
    dense, *others = time_files(timing)
    assert all(taken.p50_ms > 0 for taken in (dense, *others))
    return [replace(dense, p50_ms=10.0), *(replace(other, p50_ms=8.0, ratio=0.8) for other in others)]


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


def result(
    trial: int | None, divergence: float, ratio: float | None, drop: float | None = 0.0, **others: Any
) -> Result:
    loss = Loss(100, divergence, 0.1 * divergence, 1.0, drop, None if drop is None else 0.1)
    timing = None if ratio is None else Timing(10 * ratio, 10.0, str(trial))
    values: dict[str, Any] = {"settings": GTPConfig(num_prop=(3, 3)).to_dict(), "rungs": [divergence]} | others
    made = Result(precision="fp32", num_prop=[3, 3], macs_ratio=0.8, estimate=0.8, loss=loss, timing=timing, **values)
    return replace(made, trial=trial)


def test_digits_from_end_to_end(command: Command, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "found"
    ran = command("tune", "digits", "--max-drop", "50", *QUICK, "-o", place, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["ok"], found["trials"], found["search_images"]) == (True, 1, 64)
    assert found["default"]["ratio"] == 0.8
    assert found["validated"]["chosen"]["images"] == 120, "those that were held out"
    assert {path.name for path in place.iterdir()} >= {"tune.journal", "tune.html", "tune.json", "recipe.yaml"}
    assert found["chosen"]["num_prop"] == list(num_prop_of(place / "recipe.yaml"))
    page = (place / "tune.html").read_text("utf-8")
    assert "<svg" in page and "http" not in page.replace("http-equiv", "")
    assert page.count("<circle") == 1 + found["timed"]
    assert "searching" in ran.err
    assert not (place / ".gtp-export" / "tune" / "baseline").exists(), "exports are removed"
    ran = command("export", place / "recipe.yaml", "--no-check", "--no-report", "-o", tmp_path / "exported")
    assert ran.code == 0, ran.err
    assert read_manifest(tmp_path / "exported").num_prop == found["chosen"]["num_prop"]
    ran = command("tune", "digits", "--max-drop", "1", "-o", place, "--images", "65")
    assert (ran.code, "keeps another search (searched differ)" in ran.error) == (1, True)
    monkeypatch.setattr("gtp_exporters.tuning.run.describe_machine", lambda names: {"board": "another"})
    ran = command("tune", "digits", "--max-drop", "50", *QUICK, "-o", place)
    assert (ran.code, "keeps another search (device differ)" in ran.error) == (1, True)


def num_prop_of(path: Path) -> Any:
    found = load_recipe(str(path)).settings().num_prop
    return (found,) * 6 if isinstance(found, int) else found


@pytest.mark.parametrize(
    ("limit", "code", "words"),
    [
        (Limit(latency_ms=0.001), 5, "nothing that was timed is within 0.001 ms; the fastest is trial 1: 5.00 ms"),
        (Limit(max_drop=0.0), 3, "nothing that is faster than dense loses at most 0 points"),
        (Limit(max_drop=0.2), 3, "trial 2 loses 2.00 ± 0.50 points on the 50 images that were held out"),
        (Limit(latency_ms=8), 5, "trial 2 takes 8.50 ms (median) when timed again"),
        (Limit(max_drop=4), 0, ""),
    ],
)
def test_a_limit_that_is_not_kept_has_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: Limit, code: int, words: str
) -> None:
    def found(recipe: Recipe, output: Path, options: TuneOptions, **others: Any) -> Outcome:
        made = outcome(recipe, output, options.limit)
        write_outcome(made)
        return made

    monkeypatch.setattr("gtp_exporters.tuning.run.tune", found)
    wanted = (
        ("--max-drop", limit.max_drop) if limit.latency_ms is None else ("--latency-budget", f"{limit.latency_ms}ms")
    )
    ran = command("tune", "digits", *wanted, "-o", tmp_path)
    assert ran.code == code, ran.err
    assert words in ran.error
    assert (tmp_path / "recipe.yaml").exists() == (code == 0)
    assert json.loads((tmp_path / "tune.json").read_text("utf-8"))["ok"] == (code == 0)
    assert "front of 2 trials on 100 images of images" in ran.out
    assert "trial 2 loses less than the recipe's default and is faster" in ran.out
    wrote = "gtp-export export" if code == 0 else "open"
    assert ran.last.startswith(f"next: {wrote} {tmp_path}")


def outcome(recipe: Recipe, place: Path, limit: Limit) -> Outcome:
    config = GTPConfig.measured(num_prop=(0, 9, 0, 9, 0, 0)).to_dict()
    default = result(None, 0.01, 0.9, drop=0.1)
    timed = [default, result(1, 0.1, 0.5, drop=3.0, settings=config), result(2, 0.005, 0.8, settings=config)]
    chosen = next(iter(limit.ranked(timed)), None)
    held_out = Loss(50, 0.01, 0.001, 2.0, 2.0, 0.5)
    validated = Validated(held_out, Accuracy(50, top1=0.5), 8.5, 0.85)
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
        default=default,
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
    with (tmp_path / "tune.journal").open("ab") as file:
        file.write(b'{"op_code": 4')  # cut off
    answered = {path: path.stat().st_mtime_ns for path in (tmp_path / "dense").iterdir()}
    search = search_tiny(tmp_path, folder, kill_after=None)
    assert {path: path.stat().st_mtime_ns for path in answered} == answered, "the dense model's answers are kept"
    assert search.done == 6
    numbers = [found.trial for found in search.results[1:]]
    assert len(set(numbers)) == 6
    assert max(number for number in numbers if number is not None) == 6, "one was under way, and was done again"
    assert all(found.timing is not None or found.why for found in search.results)
    judged = {found.loss.images for found in search.results[1:] if found.loss}
    assert max(judged) < len(search.judge.images.search), "some cannot be read"


def search_tiny(place: Path, folder: Path, kill_after: int | None, workers: Workers | None = None) -> Search:
    """Search on a tiny model whose latency is its MACs, and be killed at a timing."""
    source = ModelSource(TINY, "random")
    subject = subject_of(source)
    images = split(find_image_set(folder, described(subject)))
    workers = workers or Local()
    place.mkdir(exist_ok=True)
    judge = Judge(source, images, workers, place / "dense", subject.classes)
    timer = Counted(subject, Running(), 1, place, workers)
    timer.left = kill_after
    journal = Journal(place, {}, 3, 0)
    default = journal.default() or result(None, 0.01, 0.99)
    journal.keep_default(default)
    timer.learn(journal.results())
    search = Search(journal, make_space(model_shape(subject.model), 4, ("fp32",)), judge, timer, Limit(90), default)
    search.run(6, None, quiet)
    return search


class Counted(Timer):
    """Takes the ratio of MACs for that of latency; the last of so many measurements kills the process."""

    left: int | None = None

    def measure(self, proposal: Any, plan: Any, images: Any) -> Any:
        if self.left is not None:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return Timing(plan.ratio, 1.0, self.key(proposal, plan)), None


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
    assert len({one.trial for one in found.results}) == len(found.results) == 5
    assert {path.name for path in (tmp_path / "found").iterdir()} >= {"tune.html", "tune.json", "tune.journal"}


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
    options = TuneOptions(
        Limit(max_drop=100), folder, trials=4, running=Running("onnxruntime", {"threads": 1}, seconds=0)
    )
    return tune(TINY, place, options, weights="random", workers=workers)


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
        assert not set(settings.unused()) & {"alpha", "selection"} or settings.propagation == "Merge"
        presets.add(settings.propagation)
    assert presets == {"GraphProp", "Merge"}
    assert all("CLSAttn" not in name for name in space.selections) or shape.has_class_token
    assert space.alignments == (1, 4)


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
    with pytest.raises(ImageError, match="has 11 images, and a search needs at least 12"):
        split(ImageSet(Path("images"), names[:11]))


def test_rungs_grow() -> None:
    assert rungs(40) == [40]
    assert rungs(240) == [64, 240]
    assert rungs(6667) == [64, 256, 1024, 6667]


def test_a_trial_without_hope_is_given_up() -> None:
    timed = [result(None, 0.01, 0.9), result(1, 0.001, 0.7)]
    slow = replace(result(2, 0.1, None), estimate=0.8)
    assert slow.loss is not None
    assert "diverges more than trial 1 on the same 100 images" in hopeless(slow, slow.loss, timed, 0.01, None)
    assert "diverges more than" not in hopeless(slow, slow.loss, timed, 0.2, None), "the estimate is not that sure"
    assert not hopeless(replace(slow, estimate=0.6), slow.loss, timed, 0.0, 5.0), "it may be faster"
    lossy = replace(slow.loss, drop=3.0)
    assert "--max-drop allows 1" in hopeless(replace(slow, estimate=0.1), lossy, timed, 0.0, 1.0)
    assert "trial 1 is better" in dominated(slow, 0.01, timed)
    assert not dominated(replace(slow, estimate=0.71), 0.02, timed)


def test_the_front_and_the_choice() -> None:
    default = result(None, 0.01, 0.9, drop=0.5)
    fast, middle, safe = result(1, 0.1, 0.5, drop=3.0), result(2, 0.005, 0.8), result(3, 0.0001, 0.97)
    worse = result(4, 0.2, 0.85, drop=3.0)
    timed = [default, fast, middle, safe, worse]
    assert front(timed) == [fast, middle, safe]
    lucky, slow = result(5, 0.006, 0.81, drop=-0.4), result(6, 0.0, 1.02)
    assert front([*timed, lucky, slow]) == [fast, middle, safe], (
        "a gain is no drop; the dense model beats what is slower"
    )
    assert front([slow]) == [slow]
    assert beating(timed, default) == [middle]
    assert Limit(max_drop=0.3).ranked(timed)[0] is middle
    assert Limit(max_drop=5).ranked(timed)[0] is fast
    assert Limit(latency_ms=9.8).ranked(timed)[0] is safe
    assert Limit(latency_ms=6).ranked(timed)[0] is fast
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
    latency = Latency("model.onnx", 1, 9, 7.0, 7.0, 7.0, 7.0, 7.0, 0.0, 1.0, ratio=0.7)
    again = timed_again(best[1], {identity(best[1]): latency})
    assert again.timing is not None and best[1].timing is not None
    assert (again.timing.p50_ms, again.timing.ratio, again.timing.key) == (7.0, 0.7, best[1].timing.key)
    assert timed_again(slow, {identity(best[1]): latency}) is slow


def test_the_first_choice_that_holds_on_other_images_is_taken() -> None:
    asked: list[str] = []
    ratios = {identity(settings_of(result(number, 0.1, 0.5), number)): 0.5 + 0.1 * number for number in range(1, 4)}

    class Other:
        def of(self, name: str) -> Validated:
            asked.append(name)
            return Validated(Loss(50, 0.01, 0.001, 2.0, 2.0, 0.5), Accuracy(50, top1=0.5), 8.5, ratios[name])

    others: Any = Other()
    results = [settings_of(result(number, 0.1, 0.5), number) for number in range(1, 4)]
    assert first_that_holds(results, others, lambda found: found.ratio > 0.65) is results[1]
    assert asked == [identity(results[0]), identity(results[1])], "the third is not evaluated"
    assert first_that_holds(results, others, lambda found: False) is results[0]
    assert first_that_holds([], others, lambda found: True) is None
    slow, lossy = (others.of(identity(results[2])), others.of(identity(results[0])))
    assert not slow.beats(lossy) and not lossy.beats(slow), "equally lossy"
    assert replace(lossy, loss=replace(lossy.loss, divergence=0.001)).beats(slow)


def settings_of(found: Result, number: int) -> Result:
    return replace(found, settings=GTPConfig(num_prop=(number, 3)).to_dict())


def test_answers_of_another_question_are_not_used(tmp_path: Path) -> None:
    source, folder = ModelSource(TINY, "random"), tiny_images(tmp_path / "images")
    images = split(find_image_set(folder, described(subject_of(source))))
    one, two = (Judge(source, images, Local(), tmp_path / "dense", 5, question) for question in ("one", "two"))
    shards = images.shards(0, 8)
    assert one._name(shards[0]) != two._name(shards[0])
    job = Job(-1, source, None, shards[0])
    before = answer_shard(job)
    for name in shards[0].names:
        path = folder / os.fsdecode(name.replace(b"\0", b"/"))
        path.write_bytes(SEVEN.read_bytes())
    forget()
    after = answer_shard(job)
    assert len(after) >= len(before) and np.ptp(after, axis=0).max() < 1e-4, "all of them are the same image now"


def test_without_classes_the_drop_is_bounded_by_the_answers_that_change() -> None:
    found = result(1, 0.01, 0.8, drop=None)
    assert found.objectives == (0.01, 0.8)
    assert found.loss is not None and found.loss.limited == 1.0
    assert Limit(max_drop=3).holds(found) and not Limit(max_drop=1).holds(found)


def test_latency_is_estimated_from_what_was_measured() -> None:
    estimator = Estimator(("fp32",))
    new = replace(result(9, 0.1, None), macs_ratio=0.6)
    assert estimator.estimate(new) == pytest.approx(0.6), "the ratio of MACs at first"
    for number, share in enumerate((0.9, 0.8, 0.7, 0.5)):
        estimator.learn(replace(result(number, 0.1, share + 0.1), macs_ratio=share))
    assert estimator.estimate(new) == pytest.approx(0.7, abs=0.02)


def test_a_journal_is_kept_and_checked(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"model": "one"}, 3, 0)
    trial = journal.study.ask()
    journal.tell(trial, result(0, 0.1, 0.8), -1.0)
    journal.study.ask()  # and killed
    journal.keep_default(result(None, 0.2, 0.9))
    again = Journal(tmp_path, {"model": "one"}, 3, 0)
    assert again.results() == [result(0, 0.1, 0.8)]
    assert again.default() == result(None, 0.2, 0.9)
    with pytest.raises(OutputError, match=r"keeps another search \(model differ\)"):
        Journal(tmp_path, {"model": "two"}, 3, 0)
    (tmp_path / "tune.journal").write_bytes(b'"nothing"\n{}\n')
    with pytest.raises(OutputError, match=r"tune\.journal is not the journal of a search"):
        Journal(tmp_path, {"model": "one"}, 3, 0)
    (tmp_path / "tune.journal").write_bytes(b"a line of the user's")
    with pytest.raises(OutputError, match=r"tune\.journal is not the journal of a search"):
        Journal(tmp_path, {"model": "one"}, 3, 0)
    assert (tmp_path / "tune.journal").read_bytes() == b"a line of the user's"
    (tmp_path / "tune.journal").write_bytes(b"")
    assert Journal(tmp_path, {"model": "one"}, 3, 0).results() == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "give one of --max-drop and --latency-budget: neither was given"),
        (("--max-drop", "1", "--latency-budget", "2ms"), 2, "both were given"),
        (("--latency-budget", "20kg"), 2, "--latency-budget"),
        (("--latency-budget", "0ms"), 2, "--latency-budget"),
        (("--max-drop", "1", "--timeout", "2 days"), 2, "--timeout"),
        (("--max-drop", "inf"), 2, "not a finite number"),
        (("--max-drop", "1", "--by-order"), 2, "--by-order needs --data DIR"),
        (("--max-drop", "1", "--precisions", "fp32,int8"), 2, "precision int8: a search tries fp32, bf16, fp16"),
        (("--max-drop", "1", "--backend", "tensorrt"), 2, "backend 'tensorrt' does not run model.onnx"),
        (("--max-drop", "1", "--compute", "bf16"), 2, "onnxruntime takes no option compute"),
        (("--max-drop", "1", "--data", "nosuch"), 1, "no folder nosuch"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = command("tune", "digits", *arguments, "-o", tmp_path / "found")
    assert ran.code == code, ran.err
    assert words in ran.error
    assert not (tmp_path / "found").exists()


def test_other_files_are_not_touched(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    ran = command("tune", "digits", "--max-drop", "1", "-o", tmp_path)
    assert (ran.code, f"{tmp_path} holds other files" in ran.error) == (1, True)
    assert "notes.txt" in ran.error
    assert "has no images of its own: give --data DIR" in command("tune", "deit_ti", "--max-drop", "1", "-o", "x").error


def test_exports_are_removed_however_a_search_ends(tmp_path: Path) -> None:
    def stopped(place: Path) -> None:
        for name in ("best-5", "candidate", ANSWERS):
            (place / name).mkdir()
            (place / name / "a").touch()
        raise LimitError("stopped")

    with pytest.raises(LimitError), _work(tmp_path / "found") as place:
        stopped(place)
    assert [entry.name for entry in place.iterdir()] == [ANSWERS]


def test_options_are_checked() -> None:
    with pytest.raises(LimitError, match="neither of max_drop and latency_ms given"):
        TuneOptions(Limit())
    with pytest.raises(LimitError, match="trials=0"):
        TuneOptions(Limit(max_drop=1), trials=0)
    assert isinstance(load_recipe("digits"), Recipe)
