"""Keeps a search in a journal beside the output, so that one that was killed goes on from there.

The journal is Optuna's: JSON lines, appended and flushed. Nothing in it is unpickled. A line that was cut off by a kill
is removed; the trial that was under way is done again.
"""

import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from gtp_exporters.errors import MissingPackageError, OutputError
from gtp_exporters.tuning.results import Result
from gtp_runtime.opening import open_regular

NAME = "tune.journal"
FORMAT = "gtp-export tune 1"
LARGEST = 1 << 28  # bytes
STARTS = b'{"op_code"'  # how Optuna begins a journal
RESULT = "result"  # of a trial, among its attributes
DEFAULT = "default"  # result of the recipe's default, among those of the study


class _Held:
    """The lock of a journal whose directory this process holds."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class Journal:
    """A search that is kept.

    Args:
        directory: of the output, held by this process.
        key: what tells this search from others, as plain values.
        objectives: how many values are minimised.
        seed: of what Optuna draws.

    Attributes:
        study: Optuna's.

    Raises:
        MissingPackageError: Optuna is not installed.
        OutputError: the journal there is of another search, is none of ours, or cannot be read.
    """

    def __init__(self, directory: Path, key: dict[str, Any], objectives: int, seed: int) -> None:
        self.path = directory / NAME
        optuna = _import()
        new = not self.path.exists()
        if not new:
            _check(self.path)
        try:
            backend = optuna.storages.journal.JournalFileBackend(str(self.path), lock_obj=_Held())
            self.study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=FORMAT,
                directions=["minimize"] * objectives,
                load_if_exists=True,
            )
            self._check_key(key)
            self._trials = optuna.trial
            self._restart()
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            raise OutputError(f"{self.path} cannot be used ({error}): remove it, or choose another -o") from error
        self.study.sampler = optuna.samplers.TPESampler(seed=seed + len(self.study.trials))

    def _check_key(self, key: dict[str, Any]) -> None:
        kept = self.study.user_attrs.get("key")
        if kept is None and not self.study.trials:
            self.study.set_user_attr("key", key)
            return
        kept = kept if isinstance(kept, dict) else {}
        other = [name for name in {**kept, **key} if kept.get(name) != key.get(name)]
        if other:
            raise OutputError(
                f"{self.path} keeps another search ({', '.join(other)} differ): choose another -o, or remove it"
            )

    def _restart(self) -> None:
        """End the trials that were under way when an earlier process was killed, and do them again."""
        running, failed = self._trials.TrialState.RUNNING, self._trials.TrialState.FAIL
        for trial in self.study.get_trials(deepcopy=False, states=(running,)):
            self.study.tell(trial.number, state=failed)
            if trial.params:
                self.study.enqueue_trial(trial.params)

    def results(self) -> list[Result]:
        """Return every trial that ended, in order.

        Raises:
            OutputError: one whose attributes are not ours.
        """
        ended = (self._trials.TrialState.COMPLETE, self._trials.TrialState.PRUNED)
        trials = self.study.get_trials(deepcopy=False, states=ended)
        return [self._result(trial.user_attrs.get(RESULT)) for trial in trials]

    def default(self) -> Result | None:
        """Return the result of the recipe's default; None if it is not known yet."""
        kept = self.study.user_attrs.get(DEFAULT)
        return None if kept is None else self._result(kept)

    def keep_default(self, result: Result) -> None:
        """Keep the result of the recipe's default."""
        self.study.set_user_attr(DEFAULT, result.to_dict())

    def tell(self, trial: Any, result: Result, violation: float | None) -> None:
        """Keep what is known of a trial, and let Optuna know.

        Args:
            trial: Optuna's.
            result: with a timing, the objectives count; without one it was given up.
            violation: by how much it misses the user's limit, 0 or less if it keeps it; None where that is unknown.
        """
        trial.set_user_attr(RESULT, result.to_dict())
        if violation is not None:
            trial.set_constraint("limit", violation)
        if result.timing is None:
            self.study.tell(trial, state=self._trials.TrialState.PRUNED)
        else:
            self.study.tell(trial, list(result.objectives))

    def _result(self, kept: Any) -> Result:
        try:
            return Result.from_dict(kept)
        except (msgspec.ValidationError, TypeError, AttributeError) as error:
            raise OutputError(f"{self.path} holds a trial of another form: choose another -o, or remove it") from error


def _import() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError("optuna is not installed: pip install 'gtp-export[tune]'") from error
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna


def _check(path: Path) -> None:
    """Remove a line that was cut off. A kill right at the start leaves an empty file, which is a new journal.

    Raises:
        OutputError: it is none of ours, cannot be read, or is much too large.
    """
    try:
        with open_regular(path, LARGEST) as file:
            content = file.read()
        whole = content.rfind(b"\n") + 1
        if not content.startswith(STARTS[: len(content)]):
            raise OutputError(f"{path} is not the journal of a search: move it away, or choose another -o")
        if whole < len(content):
            os.truncate(path, whole)
    except OSError as error:
        raise OutputError(f"cannot use {path}: {error.strerror or error}; choose another -o") from error
