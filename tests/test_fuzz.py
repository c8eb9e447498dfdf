"""What fuzzing has found is tried again, and a few inputs of each target besides (``make fuzz`` tries many)."""

import sys
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("cryptography")
FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from mutating import mutate  # noqa: E402
from targets import TARGETS, attempt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries warn of what is damaged


@pytest.mark.parametrize("path", sorted(FUZZ.glob("corpus/*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found(path: Path, tmp_path: Path) -> None:
    attempt(TARGETS[path.parent.name], path.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs(name: str, tmp_path: Path) -> None:
    target, random = TARGETS[name], Random(0)
    seeds = target.seeds()
    for content in (*seeds, *(mutate(random, seeds, target.words) for _ in range(30))):
        attempt(target, content, tmp_path)
