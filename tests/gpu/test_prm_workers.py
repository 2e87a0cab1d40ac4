"""PRM engines as Ray actors on a GPU: two that share it, and what they leave of it while they sleep."""

import asyncio
import subprocess

import pytest
from tiny_prm import save_tiny_prm

pytestmark = pytest.mark.gpu


def used_mib() -> int:
    """Memory in use on the first GPU, as its driver says."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_two_engines_share_a_gpu_and_give_its_memory_back_asleep(tmp_path):
    import ray

    from openrlhf_prm.cluster.engine_options import EngineFlags
    from openrlhf_prm.cluster.session import start_ray
    from openrlhf_prm.cluster.workers import ScoringPool

    flags = EngineFlags(num_engines=2, gpus_per_engine=0.5, enforce_eager=True)
    engines = flags.engines(str(save_tiny_prm(tmp_path)), seed=0)
    before = used_mib()
    start_ray({})
    try:
        pool = ScoringPool.start(engines, sleeps=True)
        assert len({tuple(ray.get(worker.__ray_call__.remote(_gpus))) for worker in pool.workers}) == 1
        scores = asyncio.run(_scored(pool))
        awake = used_mib()
        pool.sleep()
        asleep = used_mib()
        assert asyncio.run(_scored(pool)) == scores
        print({"before": before, "awake": awake, "asleep": asleep})
        assert asleep - before < (awake - before) / 4
    finally:
        ray.shutdown()


def _gpus(worker) -> list[int]:
    import ray

    return ray.get_gpu_ids()


async def _scored(pool) -> list[list[float]]:
    return await asyncio.gather(*(pool.score(f"q{index}", ["a" * 9, f"b{index}"]) for index in range(40)))
