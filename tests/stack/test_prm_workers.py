"""PRM engines as Ray actors, on real Ray and vLLM: one whose core is killed, one that sleeps, and the GPUs they see."""

import asyncio
import os

import pytest
from engine_cores import engine_cores
from tiny_prm import save_tiny_prm

from openrlhf_prm.cluster.accelerator import prepare_environment

pytestmark = pytest.mark.stack
SOLUTIONS = [(f"q{index}", ["a" * 9, "b" * 9, f"c{index}"]) for index in range(40)]


@pytest.fixture(scope="module")
def session():
    """A Ray of two nodes that leaves it to actors which of their node's GPUs they take."""
    prepare_environment()
    import ray
    from ray.cluster_utils import Cluster

    from openrlhf_prm.cluster.session import start_ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
        cluster = Cluster(initialize_head=True)
        cluster.add_node()
        environment.setenv("RAY_ADDRESS", cluster.address)
        start_ray({})
        yield ray
        ray.shutdown()
        cluster.shutdown()


async def scored(pool) -> list[list[float]]:
    return await asyncio.gather(*(pool.score(*solution) for solution in SOLUTIONS))


def test_what_a_killed_engine_had_in_hand_is_scored_again(session, tmp_path):
    from openrlhf_prm.cluster.spawning import spawn
    from openrlhf_prm.cluster.workers import RESTARTS, EngineOptions, PRMWorker, ScoringPool

    class Observed(PRMWorker):
        async def engines_sleep(self) -> list[bool]:
            return [await client.is_sleeping() for client in self.scorer.engine.clients()]

    pool = ScoringPool(spawn(Observed, "prm", EngineOptions(str(save_tiny_prm(tmp_path))), None, True, **RESTARTS))
    [worker] = pool.workers

    def of_worker(function):
        return session.get(worker.__ray_call__.remote(function))

    before = asyncio.run(scored(pool))
    pool.sleep()
    assert session.get(worker.engines_sleep.remote()) == [True]
    assert asyncio.run(scored(pool)) == before and session.get(worker.engines_sleep.remote()) == [False]

    async def killed_under_way() -> list[list[float]]:
        scoring = asyncio.ensure_future(scored(pool))
        await asyncio.sleep(0)
        first.kill()
        return await scoring

    actor = of_worker(lambda self: os.getpid())
    of_worker(lambda self: self.scorer.score_cache.clear())  # or nothing would reach the engine
    [first] = engine_cores(actor, 1)
    assert asyncio.run(killed_under_way()) == before
    assert of_worker(lambda self: os.getpid()) != actor
    session.kill(worker)


def test_actors_see_the_gpus_that_ray_gave_them(session):
    from openrlhf_prm.cluster.spawning import see_own_gpus

    class Worker:
        def seen(self) -> tuple[list, str | None]:
            see_own_gpus()
            return session.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    kinds = [session.remote(Worker).options(num_cpus=0, num_gpus=gpus) for gpus in (1, 2)]
    workers = [kind.remote() for kind in kinds]
    seen = session.get([worker.seen.remote() for worker in workers])
    assert [visible for _, visible in seen] == [",".join(map(str, given)) for given, _ in seen]
    assert [len(given) for given, _ in seen] == [1, 2]
    for worker in workers:
        session.kill(worker)


def test_what_another_node_lacks_is_named(session, tmp_path):
    from openrlhf_prm.cluster.visibility import require_seen_by_nodes

    made, mine = str(tmp_path / "made"), f"/proc/self/task/{os.getpid()}"
    assert os.path.exists(mine)  # for this process alone
    require_seen_by_nodes([("--a", made)], folders=[made], variables={"--b": "PATH", "--c": None})
    with pytest.raises(ValueError, match=f"^--a: there is no {mine} on the node "):
        require_seen_by_nodes([("--b", made), ("--a", mine)])
    with pytest.raises(ValueError, match="^--b: NO_SUCH_KEY is not set on the node "):
        require_seen_by_nodes([], variables={"--b": "NO_SUCH_KEY"})
