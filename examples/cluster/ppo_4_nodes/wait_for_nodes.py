"""`python wait_for_nodes.py N`: returns when N nodes of the cluster at RAY_ADDRESS are alive; after ten minutes it says
how many are, and exits with 1.
"""

import sys
import time

import ray

PATIENCE_S = 600


def main(wanted: int) -> int:
    """Waits; returns the exit code."""
    ray.init(log_to_driver=False, logging_level="warning")
    deadline = time.monotonic() + PATIENCE_S
    while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
        if time.monotonic() > deadline:
            print(f"wait_for_nodes: {alive} of {wanted} nodes have joined after {PATIENCE_S} s", file=sys.stderr)
            return 1
        time.sleep(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
