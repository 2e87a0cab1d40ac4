"""The dry run of a served PRM: `python serving_room.py 1x4x80 MODEL --tensor-parallel-size 4 ...`.

Prints the GPUs that the engine takes and the memory of one: weights, and the cache of keys and values with the tokens
that it holds. Exit code 2, and one line, where it does not fit.
"""

import argparse
import sys
from collections.abc import Sequence

from openrlhf_prm.cluster.demands import Role
from openrlhf_prm.cluster.dry_run import placed_or_refused, placement_table
from openrlhf_prm.cluster.memory import GIB, shown
from openrlhf_prm.cluster.nodes import described
from openrlhf_prm.cluster.rehearsal import kv_bytes_per_token, model_size

BF16 = 2


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("machines")
    parser.add_argument("model")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    args, _ = parser.parse_known_args(arguments)
    nodes, split = described(args.machines), args.tensor_parallel_size
    role = Role(name="prm", processes=1, gpus=split, flags="--tensor-parallel-size")
    try:
        print(placement_table(placed_or_refused([role], nodes), nodes))
    except ValueError as error:
        print(f"serving_room: error: {error}", file=sys.stderr)
        return 2
    weights = model_size(args.model).parameters * BF16 / split
    whole = nodes[0].gib * GIB
    cache = args.gpu_memory_utilization * whole - weights
    if cache <= 0:
        print(
            f"serving_room: error: {shown(weights)} GiB of weights do not fit --gpu-memory-utilization "
            f"{args.gpu_memory_utilization:g} of {nodes[0].gib:g} GiB; raise --tensor-parallel-size",
            file=sys.stderr,
        )
        return 2
    tokens = int(cache / kv_bytes_per_token(args.model, BF16, split))
    print(
        f"\na GPU of prm: {shown(weights + cache)} of {nodes[0].gib:g} GiB\n"
        f"  weights {shown(weights)}, cache {shown(cache)} ({tokens:,} tokens)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
