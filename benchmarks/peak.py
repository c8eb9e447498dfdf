"""Peak resident memory of a process that loads a file and runs it; precision.py starts it for each file.

python benchmarks/peak.py FILE BACKEND ['{"compute": "bf16"}']      # prints KiB
"""

import json
import resource
import sys
import warnings

from gtp_runtime import load
from gtp_runtime.errors import RandomWeightsWarning


def main(path: str, backend: str, options: str = "{}") -> None:
    warnings.simplefilter("ignore", RandomWeightsWarning)
    with load(path, backend, threads=1, **json.loads(options)) as model:
        model.warmup()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(*sys.argv[1:])
