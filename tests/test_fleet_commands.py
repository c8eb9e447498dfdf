"""compare and tune on a fleet: the same figures as on one machine, and latency from the device; without Ray."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, Command
from fake_cluster import FakeCluster
from test_tune import run_tiny, search_tiny, tiny_images

from gtp_exporters import CompareOptions, compare
from gtp_exporters.measuring.accuracy import graph_losses
from gtp_exporters.measuring.candidate import Running
from gtp_exporters.measuring.comparison import Budget
from gtp_exporters.measuring.latency import time_in_turn
from gtp_exporters.measuring.shards import Local, Workers
from gtp_runtime import find_image_set, read_manifest
from gtp_runtime.fleet import Fleet
from gtp_runtime.fleet import fleet as fleets

MEASURED = {"timing", "share", "is_front", "cost"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two looks at the nodes, and little timing."""
    monkeypatch.setattr(fleets, "SECONDS", 0.0)


class Losing:
    """Workers that are a fleet's nodes, one of which is lost after the first result."""

    def __init__(self, cluster: FakeCluster, loses: str) -> None:
        self.cluster, self.loses, self.fleet = cluster, loses, Fleet(cluster)
        self.trials = self.fleet.trials

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for found in self.fleet.map(function, items):
            if self.loses in self.cluster.alive:
                self.cluster.lose(self.loses)
            yield found

    def on_device(self, function: Callable[[Any], Any], item: Any) -> Any:
        return self.fleet.on_device(function, item)


def test_a_search_tries_the_same_when_a_node_is_lost(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "images")
    alone = Local()
    alone.trials = 2  # as many at a time as there are nodes
    expected = search_tiny(tmp_path / "alone", folder, None, alone).results
    workers: Workers = Losing(FakeCluster("a", "b"), "a")
    found = search_tiny(tmp_path / "spread", folder, None, workers).results
    assert [asdict(result) for result in found] == [asdict(result) for result in expected]
    assert "a" in workers.fleet.report().lost  # type: ignore[attr-defined]


@pytest.mark.full
def test_a_whole_search_times_on_the_device(tmp_path: Path) -> None:
    fleet = Fleet(FakeCluster("server", "board", device="board"))
    found = run_tiny(tmp_path / "found", tiny_images(tmp_path / "images"), fleet)
    assert found.trials == 4
    assert found.validated["default"].ratio > 0
    report = fleet.report()
    assert set(report.counts) == {"server"}
    assert set(report.timed) == {"board"}


def test_nodes_read_the_images_that_were_held_out(digits: Path) -> None:
    fleet = Fleet(FakeCluster("server", "board", device="board"))
    images = find_image_set(DIGITS / "images", read_manifest(digits)).spread(40)
    runnings = [Running("onnxruntime", {"threads": 1})] * 2
    files = [digits / "dense.onnx", digits / "model.onnx"]
    found, alone = (graph_losses(files, runnings, images, workers=workers) for workers in (fleet, Local()))
    assert found == alone and found[1].images == 40
    assert time_in_turn(files, runnings, 0.0, 1, fleet)[1].ratio > 0
    assert (fleet.report().counts, fleet.report().timed) == ({"server": 1}, {"board": 1})


@pytest.mark.full
def test_a_comparison_has_the_same_figures(tmp_path: Path) -> None:
    options = CompareOptions(methods=("measured",), budgets=(Budget(keep=0.75),), seconds=0.0, rounds=1, limit=24)
    fleet = Fleet(FakeCluster("server", "board", device="board"))
    alone = compare("digits", tmp_path / "alone", options=options)
    spread = compare("digits", tmp_path / "spread", options=options, fleet=fleet)

    def figures(row: Any) -> dict[str, Any]:
        return {name: value for name, value in asdict(row).items() if name not in MEASURED}

    assert [figures(row) for row in spread.rows] == [figures(row) for row in alone.rows]
    assert all(row.timing and row.cost and row.cost.peak_mib for row in spread.rows)
    assert fleet.report().timed["board"] >= 4, "what it is, latency once or more, two files started"


@pytest.mark.parametrize("arguments", [("compare", "digits"), ("tune", "digits", "--max-drop", "1")])
def test_the_cluster_is_joined_first(command: Command, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = command(*arguments, "-o", tmp_path / "out", "--ray", "127.0.0.1:1")
    assert (ran.code, ran.out) == (4, "")
    assert "no cluster at 127.0.0.1:1" in ran.error
    assert not (tmp_path / "out").exists()
