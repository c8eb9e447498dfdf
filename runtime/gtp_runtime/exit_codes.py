"""The exit codes of commands, and the code for each kind of error of the runtime."""

import errno

from gtp_runtime.errors import (
    BackendMissingError,
    BudgetMissedError,
    DeviceError,
    FleetError,
    GTPRuntimeError,
    InputError,
    NoClassesError,
    RandomWeightsError,
    SelfTestError,
    first_line,
)

DONE = 0
FAILED = 1
USAGE = 2
GATE_FAILED = 3
MISSING = 4
BUDGET_MISSED = 5

Codes = tuple[tuple[tuple[type[Exception], ...], int], ...]
RUNTIME_CODES: Codes = (  # the first that fits
    ((InputError, NoClassesError), USAGE),
    ((BackendMissingError, DeviceError, FleetError, RandomWeightsError), MISSING),
    ((SelfTestError,), GATE_FAILED),
    ((BudgetMissedError,), BUDGET_MISSED),
    ((GTPRuntimeError,), FAILED),
)


def code_of(error: Exception, codes: Codes = RUNTIME_CODES) -> int:
    """Return the exit code of an error that ``codes`` lists."""
    return next(code for kinds, code in codes if isinstance(error, kinds))


def system_error(error: OSError) -> str:
    """Return an error of the operating system as one line that says what to do."""
    reason = error.strerror or first_line(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}: make room on the disk of the output and on that of temporary files (TMPDIR)"
    if error.filename is None:
        return f"{reason}: check the files, the disks and the devices of this machine (-v shows where)"
    return f"{error.filename}: {reason}: check that this user may read and write it"
