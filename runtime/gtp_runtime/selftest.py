"""The self-test: does a loaded file answer on this device as its parity pack says?"""

import logging
import time
from typing import TYPE_CHECKING

from gtp_runtime.errors import SelfTestError
from gtp_runtime.parity import Parity
from gtp_runtime.progress import Progress

if TYPE_CHECKING:
    from gtp_runtime.model import Model

log = logging.getLogger(__name__)


def selftest(model: "Model", progress: Progress, min_kept: float | None) -> Parity:
    """Do what ``Model.selftest`` says."""
    start = time.perf_counter()
    parity = model.validate(progress, min_kept)
    if not parity.ok:
        raise SelfTestError(
            f"{model.path.name} fails its self-test with {model.backend.name}: {parity.problems[0]}; do not use it "
            "here: gtp-export validate DIR shows every gate",
            parity,
        )
    log.info("self-test of %s: %d images in %.2f s", model.path, parity.images, time.perf_counter() - start)
    return parity
