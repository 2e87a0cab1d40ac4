"""Ray's start on a machine that is busy."""

import logging
import warnings
from typing import Any

import ray

logger = logging.getLogger(__name__)
TRIES = 3
_TOO_SLOW = "timed out during startup"
_TIP = "Tip: In future versions of Ray"
"""What Ray warns of at each start, before the one line that may say why a run is refused."""


def init_ray(address: str | None = None, **options: Any) -> None:
    """`ray.init`, and again where a node of our own was too slow to start, up to `TRIES` times: Ray gives it 30
    seconds, which no setting changes. Raises what Ray raises; RuntimeError where no try was enough.
    """
    for number in range(1, TRIES + 1):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", _TIP, FutureWarning)
                ray.init(address, **options)
            return
        except Exception as error:  # Ray has no class for it
            if _TOO_SLOW not in str(error):
                raise
            ray.shutdown()
            logger.warning(f"Ray's node did not start within 30 s, try {number} of {TRIES}; this machine is busy")
    raise RuntimeError(f"Ray's node did not start in {TRIES} tries of 30 s: is this machine overloaded?")
