"""Memory and time of an operation, measured in a process of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRAME = """
import json, resource, sys, warnings
sys.path[:0] = {roots}
warnings.simplefilter("ignore")
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
error = text = ""
try:
    {code}
except Exception as caught:
    error, text = type(caught).__name__, str(caught)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([error, text, (after - before) / 1024]))
"""


@dataclass(frozen=True)
class Measured:
    """The error's class and text ("" for none), and by how many MB the process grew at its largest."""

    error: str
    text: str
    grown: float


def measured(setup: str, code: str, timeout: float = 60) -> Measured:
    """Run one line of code after others that prepare it."""
    roots = [str(ROOT / name) for name in (".", "exporters", "runtime", "models")]
    program = FRAME.format(roots=roots, setup=setup, code=code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return Measured(*json.loads(done.stdout.splitlines()[-1]))
