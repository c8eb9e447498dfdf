"""``make fuzz``: each target for a while, in processes of their own; what is found is written to its corpus.

Half of the time goes to bytes: by atheris, which looks for ways through our code, where it is installed
(``pip install 'gtp-export[fuzz]'``), else by mutations of ours. The other half goes to structures made by hypothesis.
A finding is an error that is not ours, a run of more than 5 seconds of computing or 60 of waiting, more than 1 GB of
memory, or the process's death.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / name) for name in (".", "exporters", "runtime", "models")]
FOUND = "found"  # a file that names what was found


def main() -> int:
    """Run the targets that are asked for, one after another; return 1 where something was found."""
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--child", choices=sorted(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        WAYS[given.child](given.targets[0], given.seconds, given.seed)
        return 0
    guided = importlib.util.find_spec("atheris") is not None
    ways = ("guided" if guided else "mutated", "structured")
    found = [_in_child(name, way, given.seconds / 2, given.seed) for name in given.targets or TARGETS for way in ways]
    return int(any(found))


def _in_child(name: str, way: str, seconds: float, seed: int) -> bool:
    """Return whether something was found; the process may die of it."""
    from running import keep

    with tempfile.TemporaryDirectory(prefix="gtp-fuzz-") as folder:
        command = [sys.executable, __file__, name, "--child", way, "--seconds", str(seconds), "--seed", str(seed)]
        environment = {**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=False)
        found = (Path(folder) / FOUND).exists()
        if done.returncode and (Path(folder) / "current").exists():
            print(f"{name}: the process ended with {done.returncode}: {keep(name, Path(folder) / 'current')}")
        tally = Path(folder) / "count"
        count = tally.read_text("ascii") if tally.exists() else "fewer than 50"
        print(f"{name}, {way}: {count} inputs, {'FOUND' if found or done.returncode else 'ok'}", flush=True)
        return found or bool(done.returncode)


def mutated(name: str, seconds: float, seed: int) -> None:
    """Change seeds at random."""
    from mutating import mutate
    from running import Runner

    random, runner = Random(seed), Runner(name)
    seeds = runner.target.seeds()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        runner.run(mutate(random, seeds, runner.target.words))


def guided(name: str, seconds: float, seed: int) -> None:
    """Let atheris change seeds; it keeps those that lead to code that was not reached yet. It ends the process."""
    import atheris

    with atheris.instrument_imports(include=["gtp_runtime", "gtp_models", "gtp_export", "gtp_exporters"]):
        pass
    from running import Runner

    runner, place = Runner(name), Path(tempfile.mkdtemp())
    for index, content in enumerate(runner.target.seeds()):
        (place / str(index)).write_bytes(content)
    words = place.parent / "words"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in runner.target.words)
    words.write_text("".join(f'"{word}"\n' for word in escaped), encoding="utf-8")
    limits = [f"-max_total_time={max(1, int(seconds))}", "-timeout=0", "-rss_limit_mb=4096", "-max_len=65536"]
    options = [*limits, f"-seed={seed % (1 << 31)}", f"-dict={words}", "-verbosity=0", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *options, str(place)], runner.run)
    atheris.Fuzz()


def structured(name: str, seconds: float, seed: int) -> None:
    """Let hypothesis make inputs."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from running import Runner

    runner, end = Runner(name), time.monotonic() + seconds

    def run(content: bytes) -> None:
        if time.monotonic() < end:
            runner.run(content)

    while time.monotonic() < end:
        seed += 1
        once = given(runner.target.structured)(run)
        quiet = settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seeded(seed)(quiet(once))()


WAYS: dict[str, Callable[[str, float, int], None]] = {
    "mutated": mutated,
    "guided": guided,
    "structured": structured,
}


if __name__ == "__main__":
    sys.exit(main())
