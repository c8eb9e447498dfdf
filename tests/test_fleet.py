"""A fleet hands items out, in order and in bounded memory, and does again what a lost node had; without Ray."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, SEVEN, Command, python
from fake_cluster import DiedError, FakeCluster

import gtp_runtime
from gtp_export.running import joined_fleet
from gtp_runtime import Model
from gtp_runtime.errors import BackendMissingError, FleetError, ImageError, InputError, ManifestError
from gtp_runtime.fleet import Fleet, Timing, connect, fleet_scoring, time_files
from gtp_runtime.fleet import fleet as fleets
from gtp_runtime.fleet.node import code_digests, names_digest
from gtp_runtime.latency import Latency, summarise

IMAGES = DIGITS / "images"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two looks at the nodes."""
    monkeypatch.setattr(fleets, "SECONDS", 0.0)


def square(number: int) -> int:
    return number * number


def test_results_come_in_order_from_all_nodes() -> None:
    cluster = FakeCluster("a", "b", "c")
    with Fleet(cluster) as fleet:
        assert fleet.trials == 3
        assert list(fleet.map(square, range(50))) == [(number, number * number) for number in range(50)]
        report = fleet.report()
        assert list(fleet.map(square, [])) == []
    assert sum(report.counts.values()) == 50 and min(report.counts.values()) > 10
    assert (report.lost, report.left_out) == ([], {})
    assert cluster.closed and not cluster.submitted


def test_few_items_are_taken_ahead() -> None:
    cluster, taken = FakeCluster("a", "b"), []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    fleet = Fleet(cluster)
    for item, _ in fleet.map(square, items()):
        assert len(taken) - item <= 2 * fleets.WINDOW + 1
    assert cluster.most <= 2 * fleets.WINDOW
    results = fleet.map(square, items())
    next(results)
    results.close()
    assert not cluster.submitted, "what is no longer wanted is cancelled"


def test_what_a_lost_node_had_is_done_again() -> None:
    cluster = FakeCluster("a", "b")
    fleet, found = Fleet(cluster), []
    for item, result in fleet.map(square, range(40)):
        found.append((item, result))
        if item == 10:
            cluster.lose("a")
        if item == 20:
            cluster.add("c")
    assert found == [(number, number * number) for number in range(40)]
    report = fleet.report()
    assert report.lost == ["a"]
    assert set(report.counts) == {"a", "b", "c"}, "a node that joins works as well"


def test_an_error_comes_in_the_place_of_its_item() -> None:
    results = Fleet(FakeCluster("a", "b", "c")).map(inverse, [1, 2, 3, 4, 0, 5])
    assert [next(results)[0] for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)


def inverse(number: int) -> float:
    return 1 / number


def test_no_node_is_left() -> None:
    cluster = FakeCluster("a")
    results = Fleet(cluster).map(square, range(40))
    next(results)
    cluster.lose("a")
    with pytest.raises(FleetError, match="lost: a"):
        list(results)
    with pytest.raises(FleetError, match="ray start"):
        list(Fleet(FakeCluster()).map(square, [1]))


def test_an_item_that_ends_its_process_is_given_up() -> None:
    def deadly(number: int) -> int:
        if number == 3:
            raise DiedError("the process ended")
        return number

    results = Fleet(FakeCluster("a", "b")).map(deadly, range(10))
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FleetError, match="the process ended"):
        next(results)


def test_a_task_takes_all_cpus_of_the_smallest_node() -> None:
    cluster = FakeCluster("a", "b")
    cluster.alive["b"] = replace(cluster.alive["b"], cpus=8)
    fleet = Fleet(cluster)
    assert len(list(fleet.map(square, range(9)))) == 9
    assert {place.cpus for place in cluster.places} == {2}
    del cluster.alive["a"]
    list(fleet.map(square, [1]))
    assert cluster.places[-1].cpus == 8


def test_a_node_that_cannot_do_it_is_left_out() -> None:
    cluster, made = FakeCluster("a", "b"), []

    def make() -> Callable[[int], int]:
        made.append(1)
        if len(made) == 1:
            raise BackendMissingError("onnxruntime is not installed: pip install it")
        return square

    fleet = Fleet(cluster)
    assert len(list(fleet.map_with(make, range(9)))) == 9
    assert len(made) == 2, "it is made once on each node"
    assert fleet.report().left_out == {"a": "onnxruntime is not installed: pip install it"}
    assert cluster.places[-1].without == {"a"}


def unfit(monkeypatch: pytest.MonkeyPatch, code: dict[str, str], images: tuple[str, str] | None = None) -> str:
    """Return why the only node does nothing for a command that has this code and these images; "" if it does."""
    fleet = Fleet(FakeCluster("a"), images=images)
    with monkeypatch.context() as patch:
        patch.setattr(fleets, "code_digests", lambda: code)
        with suppress(FleetError):
            list(fleet.map(square, [1]))
    return fleet.report().left_out.get("a", "")


def test_a_node_with_other_code_or_images_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = code_digests()
    assert unfit(monkeypatch, own) == ""
    assert "gtp_models" in unfit(monkeypatch, {**own, "gtp_models": "another"})
    alone = {"gtp_runtime": own["gtp_runtime"]}
    assert unfit(monkeypatch, alone) == "", "a package that only one of them has is not compared"
    assert unfit(monkeypatch, own, (str(IMAGES), names_digest(str(IMAGES)))) == ""
    assert str(IMAGES) in unfit(monkeypatch, own, (str(IMAGES), names_digest(str(IMAGES / "7"))))
    assert "missing" in unfit(monkeypatch, own, ("missing", ""))


def test_latency_is_measured_on_the_device_alone() -> None:
    cluster = FakeCluster("server", "board", device="board")
    fleet = Fleet(cluster)
    assert fleet.trials == 1, "a device is kept for timing"
    assert fleet.on_device(square, 5) == 25
    assert len(list(fleet.map(square, range(9)))) == 9
    assert (fleet.report().counts, fleet.report().timed) == ({"server": 9}, {"board": 1})
    assert (len(cluster.done["board"]), len(cluster.done["server"])) == (1, 9)
    alone = Fleet(FakeCluster("board", device="board"))
    assert [result for _, result in alone.map(square, [2, 3])] == [4, 9], "a device works where there is nothing else"
    with pytest.raises(ZeroDivisionError):
        fleet.on_device(inverse, 0)
    fleet.check_device()
    cluster.lose("board")
    for call in (fleet.check_device, lambda: fleet.on_device(square, 5)):
        with pytest.raises(FleetError, match="gtp_device"):
            call()


def test_a_device_works_once_nothing_else_is_left() -> None:
    cluster = FakeCluster("server", "board", device="board")
    fleet = Fleet(cluster)
    results = fleet.map(square, range(30))
    next(results)
    cluster.lose("server")
    assert [item for item, _ in results] == list(range(1, 30))
    assert fleet.report().counts["board"] > 0


def test_a_call_on_a_device_that_is_lost_is_done_again() -> None:
    cluster = FakeCluster("board", "other", device="board")
    calls: list[int] = []

    def lost_once(number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise DiedError("gone")
        if len(calls) == 2:
            cluster.alive["other"] = replace(cluster.alive["other"], device=1.0)
            cluster.lose("board")
            raise DiedError("gone")
        return number

    fleet = Fleet(cluster)
    assert fleet.on_device(lost_once, 7) == 7
    assert calls == [7, 7, 7]
    assert (fleet.report().timed, fleet.report().lost) == ({"other": 1}, ["board"])

    def always(number: int) -> int:
        raise DiedError("gone")

    with pytest.raises(FleetError, match="gone"):
        fleet.on_device(always, 7)


def test_it_is_said_which_nodes_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "PATIENCE", -1.0)
    cluster, told = FakeCluster("a", "board", device="board"), []

    def tell(text: str) -> None:
        told.append(text)
        cluster.busy.clear()

    fleet = Fleet(cluster, tell)
    assert list(fleet.map(square, [2])) == [(2, 4)] and not told
    cluster.busy = {"a", "board"}
    assert [result for _, result in fleet.map(square, range(5))] == [0, 1, 4, 9, 16]
    (text,) = told
    assert " a:" in text and "board" not in text
    cluster.busy = {"board"}
    assert fleet.on_device(square, 3) == 9
    assert len(told) == 2 and " board:" in told[1]


@pytest.fixture
def dense(digits: Path) -> Iterator[Model]:
    with gtp_runtime.load(digits / "dense.onnx", threads=1) as found:
        yield found


def test_an_evaluation_is_the_same_as_in_one_process(model: Model, dense: Model, tmp_path: Path) -> None:
    cluster, shares = FakeCluster("a", "b"), []
    folder = Path(shutil.copytree(IMAGES, tmp_path / "images"))
    (folder / "3" / "broken.png").write_bytes(SEVEN.read_bytes()[:80])
    fleet = Fleet(cluster)

    def tell(task: str, share: float | None = None) -> None:
        shares.append(share)
        if len(shares) == 5:
            cluster.lose("a")

    whole = gtp_runtime.evaluate(model, dense, folder)
    assert gtp_runtime.evaluate(model, dense, folder, tell, scoring=fleet_scoring(fleet)) == whole
    assert (whole.images, whole.unreadable) == (360, 1)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert fleet.report().lost == ["a"]
    with pytest.raises(ImageError, match="cannot read the image .*broken"):
        gtp_runtime.evaluate(model, dense, folder, strict=True, scoring=fleet_scoring(Fleet(FakeCluster("a"))))


def test_an_evaluation_goes_on_on_a_fleet(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, kept, cluster = gtp_runtime.evaluate(model, None, IMAGES), tmp_path / "kept.json", FakeCluster("a")

    def lose(task: str, share: float | None = None) -> None:
        if "a" in cluster.alive:
            cluster.lose("a")

    with pytest.raises(FleetError, match="lost: a"):
        gtp_runtime.evaluate(model, None, IMAGES, lose, resume=kept, scoring=fleet_scoring(Fleet(cluster)))
    assert gtp_runtime.evaluate(model, None, IMAGES, resume=kept) == whole


def test_files_are_sent_to_the_device(digits_copy: Path) -> None:
    timing = Timing(
        (digits_copy / "dense.onnx", digits_copy / "model.onnx"), "auto", ({"threads": 1},) * 2, 0.0, rounds=3
    )
    fleet = Fleet(FakeCluster("board", device="board"))
    first, second = fleet.on_device(time_files, timing)
    assert (first.file, second.file, first.runs) == ("dense.onnx", "model.onnx", 3)
    assert second.macs_ratio == pytest.approx(0.7, abs=0.02)
    found, copies = fleet.on_device(where, timing)
    assert set(found) == {"model.json", "reference.npz", "dense.onnx"}
    assert not any(copy.exists() for copy in copies), "copies are removed"
    (digits_copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(ManifestError, match="sha256 differs"):
        fleet.on_device(time_files, timing)


def test_of_several_loads_the_middle_one_counts(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([(3.0, 0.5), (2.0, 0.9), (1.0, 0.8)])

    def timed(models: Any, seconds: float, rounds: int) -> list[Latency]:
        dense, ratio = next(taken)
        return [summarise("", 1, [1e-3 * dense]), replace(summarise("", 1, [1e-3 * dense * ratio]), ratio=ratio)]

    monkeypatch.setattr("gtp_runtime.fleet.jobs.benchmark", timed)
    first, second = time_files(Timing((digits / "dense.onnx", digits / "model.onnx"), loads=3))
    assert (first.p50_ms, first.ratio) == (pytest.approx(2.0), 1.0)
    assert (second.p50_ms, second.ratio, second.file) == (pytest.approx(0.8), 0.8, "model.onnx")


def where(timing: Timing) -> tuple[list[str], tuple[Path, ...]]:
    """Return what lies beside the first of the files, and where they are."""
    return [path.name for path in timing.files[0].parent.iterdir()], timing.files


@pytest.mark.parametrize("address", ["", "here", "ray://host:10001", "host:", ":1", "local"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"is no address of a cluster: give HOST:PORT of its head, or auto$"):
        connect(address)


def test_validate_says_what_is_wrong_with_the_cluster(command: Command, digits: Path) -> None:
    ran = command("validate", digits, "--data", IMAGES, "--ray", "127.0.0.1:1")
    assert (ran.code, ran.out) == (4, "")
    assert "no cluster at 127.0.0.1:1" in ran.error and "ray start --head starts one" in ran.error
    ran = command("validate", digits, "--ray", "127.0.0.1:1")
    assert ran.code == 2 and "--ray needs --data DIR" in ran.error


def test_without_ray_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendMissingError, match=r"^ray is not installed: pip install 'gtp-export\[ray\]'$"):
        connect("auto")


def test_a_fleet_is_imported_without_ray() -> None:
    ran = python("import gtp_runtime.fleet; assert 'ray' not in sys.modules; print('fine')")
    assert ran.out == "fine\n", ran.err


def test_what_ray_prints_is_no_output_of_a_command(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("gtp_runtime.fleet.connect", lambda *_: Fleet(FakeCluster("a")))
    with joined_fleet("auto", None) as fleet:
        print("\x1b[33m(raylet)\x1b[0m a node is gone")
        assert fleet is not None
    print("{}")
    assert capsys.readouterr().out == "{}\n"
