"""Runs inputs within limits of time and memory, and keeps what is found."""

import contextlib
import hashlib
import resource
import signal
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from targets import TARGETS, attempt

CORPUS = Path(__file__).parent / "corpus"
SECONDS, MEGABYTES = 5, 1000
WAITING = 60  # seconds that may pass, on a busy machine, while fewer are spent


class TooLongError(BaseException):
    """A run took longer than is allowed."""


class Runner:
    """Runs the inputs of a target; of those that fail at one place in the code, one is kept."""

    def __init__(self, name: str) -> None:
        self.name, self.target, self.count = name, TARGETS[name], 0
        self.found: set[str] = set()
        place = Path(tempfile.gettempdir())
        self.folder, self.current = Path(tempfile.mkdtemp()), place / "current"
        self.note, self.tally = place / "found", place / "count"  # for the parent
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, _too_long)
        warnings.simplefilter("ignore")

    def run(self, content: bytes) -> None:
        """Run an input."""
        self.current.write_bytes(content)  # what is there when the process dies
        self.count += 1
        if not self.count % 50:
            self.tally.write_text(str(self.count), "ascii")
        before = _megabytes()
        try:
            with _timed(self.count > 1):  # the first one imports
                attempt(self.target, content, self.folder)
        except (Exception, TooLongError) as error:
            self._report(error)
        if _megabytes() > before + MEGABYTES:
            self._report(MemoryError(f"{_megabytes() - before:.0f} MB"))

    def _report(self, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else str(type(error))
        if place not in self.found:
            self.found.add(place)
            self.note.write_text("\n".join(self.found), encoding="utf-8")
            print(
                f"{self.name}: {keep(self.name, self.current)}\n{''.join(traceback.format_exception(error))}",
                flush=True,
            )


def keep(name: str, source: Path) -> Path:
    """Copy an input to the corpus."""
    content = source.read_bytes()
    path = CORPUS / name / hashlib.sha256(content).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@contextlib.contextmanager
def _timed(counts: bool) -> Iterator[None]:
    """Raise ``TooLongError`` after too many seconds of computing, or of waiting."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS if counts else 0)
    signal.alarm(WAITING if counts else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLongError(f"more than {SECONDS} s")


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
