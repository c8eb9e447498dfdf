"""What native code of engines prints, past Python, goes elsewhere: stdout may hold one JSON document."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def printing_to(stream: int, target: int) -> Iterator[None]:
    """Within, what is written to a file descriptor of this process (1 stdout, 2 stderr) goes to another one."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(stream)
    try:
        os.dup2(target, stream)
        yield
    finally:
        os.dup2(kept, stream)
        os.close(kept)
