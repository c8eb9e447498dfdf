"""Messages for errors while a directory is written: the cause, and the state of the directory."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from gtp_exporters.directory.contents import DONE
from gtp_runtime.manifest import FILE_NAME, WORK_NAME
from gtp_runtime.owned import listed_files

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EIO, errno.EROFS, errno.EFBIG)


def is_about(error: OSError, directory: Path) -> bool:
    """Whether an error is about writing there: a full disk often comes without a name."""
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if not names:
        return error.errno in _DISK
    return any(path == directory or path in directory.parents or directory in path.parents for path in names)


def explain(error: OSError, directory: Path) -> str:
    """Return a line with the failure, what to do, and the state of the directory."""
    if error.errno in _FULL:
        return f"no space left to write {directory}: free some there; {_remains(directory)}"
    return f"cannot write {directory}: {error.strerror or error}; {_remains(directory)}"


def _remains(directory: Path) -> str:
    """Return the state of the directory after a failure."""
    work = directory / WORK_NAME
    with suppress(OSError):
        if (work / DONE / FILE_NAME).exists():
            return f"the new export is complete in {work / DONE} and {directory}: the next export there moves the rest"
        if work.exists():
            return f"{work} could not be removed: the next export there does so"
        if listed_files(directory):
            return "the earlier export is unchanged"
    return "nothing was left behind"
