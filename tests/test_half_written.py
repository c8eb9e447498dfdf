"""Nothing is half-written: a command that is killed, or whose disk fails, leaves the earlier artifact or the new one.

What a killed command left is cleaned up by the next one.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from killed_commands import CASES, MOVING, QUICK, Case
from PIL import Image
from steps import counted, failing

from gtp_runtime.errors import GTPError

REMOVING = {"unlink", "rmdir"}  # steps after whose failure something is left
Killed = Callable[..., int]
quick = pytest.mark.parametrize("name", QUICK)
everything = pytest.mark.parametrize("name", CASES)
pytestmark = pytest.mark.filterwarnings("ignore:.*exported with random weights")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 256, (130, 16, 16, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def make(tiny: Path, images: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a place for a case, with the earlier artifact in it."""
    (tmp_path / "images").symlink_to(images)
    bases: dict[str, Path] = {}

    def base(name: str) -> Path:
        place = tmp_path / "base"
        if CASES[name].base == "nothing":
            place.mkdir()
        else:
            shutil.copytree(tiny, place)
        CASES[name].write(place, "old")
        return place

    def run(name: str) -> Path:
        if name not in bases:
            bases[name] = base(name)
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(bases[name], place))

    return run


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    """``small_exports.killed`` of ``write_case``, in a process that has loaded everything."""
    command = [sys.executable, str(Path(__file__).with_name("killed_commands.py"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == "ready\n"

        def call(*arguments: object) -> int:
            print(json.dumps(arguments, default=str), file=server.stdin, flush=True)
            return int(server.stdout.readline())

        yield call


def left_in(place: Path) -> set[str]:
    """Temporary files, and the folder in which exports are written."""
    return {path.name for path in place.iterdir() if path.name.startswith(".")}


def check_next(place: Path, case: Case) -> None:
    """The next command cleans up."""
    if case.mend is not None:
        case.mend(place)
        assert case.state(place) in ("old", "new")
    else:
        case.write(place, "newest")
        assert case.state(place) == "newest"
    assert not left_in(place) - case.kept


def kill(name: str, times: int, make: Callable[[str], Path], killed: Killed, seed: int = 0) -> None:
    """Kill a command that often: half of the times before a step to the file system, half at any time."""
    chance = random.Random(seed)
    place = make(name)
    start = time.monotonic()
    assert killed(0, 0, place, name, "new", -1) == 0
    seconds, steps = time.monotonic() - start, int(place.with_name("place.steps").read_text("utf-8"))
    assert CASES[name].state(place) == "new"
    done = 0
    while done < times:
        at_step = done % 2 == 0
        place = make(name)
        arguments = (0, 0) if at_step else (signal.SIGKILL, chance.uniform(0, seconds))
        step = chance.randrange(steps) if at_step else -1
        status = killed(*arguments, place, name, "new", step)
        done += status == -signal.SIGKILL  # it may end before it is killed
        assert status in (0, -signal.SIGKILL)
        assert CASES[name].state(place) in ("old", "new", MOVING)
        check_next(place, CASES[name])


@quick
def test_killed_a_few_times(name: str, make: Callable[[str], Path], killed: Killed) -> None:
    kill(name, 4, make, killed)


@pytest.mark.full
@everything
def test_killed_two_hundred_times_in_all(name: str, make: Callable[[str], Path], killed: Killed) -> None:
    kill(name, -(-200 // len(CASES)), make, killed, seed=1)


def fail_steps(name: str, make: Callable[[str], Path], every: int = 1) -> None:
    """Let one step to the file system fail after another, until there are no more."""
    case, states, said = CASES[name], [], list[str]()
    for step in range(0, 1000, every):
        place, failed = make(name), list[str]()
        try:
            with counted(failing(step, failed)):
                case.write(place, "new")
        except (GTPError, OSError) as error:
            said.append(str(error))
        if not failed:
            break
        states.append(case.state(place))
        assert states[-1] in ("old", "new", MOVING), failed
        assert states[-1] == MOVING or failed[0] in REMOVING or left_in(place) <= {".gtp-export"}, failed
        check_next(place, case)
    assert case.state(place) == "new"
    assert "old" in states
    assert not [text for text in said if "\n" in text]


@quick
def test_every_step_fails_in_turn(name: str, make: Callable[[str], Path]) -> None:
    fail_steps(name, make)


@pytest.mark.full
@pytest.mark.parametrize("name", ["export", "quantize"])
def test_steps_of_long_commands_fail(name: str, make: Callable[[str], Path]) -> None:
    """Each step of what moves an export to its place fails in "placing an export"; here are some of all."""
    fail_steps(name, make, every=10)
