"""`python wait_for_nodes.py N`: returns when N nodes of the cluster at RAY_ADDRESS are alive; after ten minutes it says
how many are, and exits with 1.
"""

import sys
import time

import ray

PATIENCE_S = 600


def alive() -> int:
    """The number of nodes; 0 where no cluster answers yet."""
    try:
        ray.init(log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    except ConnectionError:
        return 0
    return sum(node["Alive"] for node in ray.nodes())


def main(wanted: int) -> int:
    """Waits; returns the exit code."""
    deadline = time.monotonic() + PATIENCE_S
    while (there := alive()) < wanted:
        if time.monotonic() > deadline:
            print(f"wait_for_nodes: {there} of {wanted} nodes have joined after {PATIENCE_S} s", file=sys.stderr)
            return 1
        time.sleep(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
