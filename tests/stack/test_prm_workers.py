"""PRM engines as Ray actors, on real Ray and vLLM: one whose core is killed, and then its node; one that sleeps, and
the GPUs they see.
"""

import asyncio
import os

import pytest
from engine_cores import engine_cores
from tiny_prm import save_tiny_prm

from openrlhf_prm.cluster.accelerator import prepare_environment

pytestmark = pytest.mark.stack
SOLUTIONS = [(f"q{index}", ["a" * 9, "b" * 9, f"c{index}"]) for index in range(40)]


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two nodes that leaves it to actors which of their node's GPUs they take."""
    prepare_environment()
    import ray
    from ray.cluster_utils import Cluster

    from openrlhf_prm.cluster.session import start_ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
        # A node that refuses is lost after five tries; a slow one still has Ray's ten seconds for each.
        environment.setenv("RAY_health_check_period_ms", "500")
        cluster = Cluster(initialize_head=True)
        cluster.add_node()
        environment.setenv("RAY_ADDRESS", cluster.address)
        start_ray({})
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def session(cluster):
    import ray

    return ray


async def scored(pool) -> list[list[float]]:
    return await asyncio.gather(*(pool.score(*solution) for solution in SOLUTIONS))


async def scored_while(pool, kill) -> list[list[float]]:
    scoring = asyncio.ensure_future(scored(pool))
    await asyncio.sleep(0)
    kill()
    return await scoring


def test_what_a_killed_engine_or_node_had_in_hand_is_scored_again(session, cluster, tmp_path):
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from openrlhf_prm.cluster.spawning import spawn
    from openrlhf_prm.cluster.workers import RESTARTS, EngineOptions, PRMWorker, ScoringPool

    hold, held = tmp_path / "hold", tmp_path / "held"

    class Observed(PRMWorker):
        """While the file `hold` is there it keeps what it is asked, and says so by the file `held`."""

        async def score_all(self, solutions):
            if hold.exists():
                held.touch()
                await asyncio.Event().wait()
            return await super().score_all(solutions)

        async def engines_sleep(self) -> list[bool]:
            return [await client.is_sleeping() for client in self.scorer.engine.clients()]

    others = {node["NodeID"] for node in session.nodes()}
    node = cluster.add_node()
    [lost] = {node["NodeID"] for node in session.nodes()} - others
    place = NodeAffinitySchedulingStrategy(lost, soft=True)  # elsewhere where it is gone
    options = EngineOptions(str(save_tiny_prm(tmp_path / "prm")))
    pool = ScoringPool(spawn(Observed, "prm", options, None, True, scheduling_strategy=place, **RESTARTS))
    [worker] = pool.workers

    def of_worker(function):
        return session.get(worker.__ray_call__.remote(function))

    def place_of(self) -> tuple[str, int]:
        return session.get_runtime_context().get_node_id(), os.getpid()

    before = asyncio.run(scored(pool))
    pool.sleep()
    assert session.get(worker.engines_sleep.remote()) == [True]
    assert asyncio.run(scored(pool)) == before and session.get(worker.engines_sleep.remote()) == [False]

    async def killed_under_way(kill) -> list[list[float]]:
        hold.touch()
        held.unlink(missing_ok=True)
        scoring = asyncio.ensure_future(scored(pool))
        while not held.exists():
            await asyncio.sleep(0.05)
        hold.unlink()
        kill()
        return await scoring

    first = of_worker(place_of)
    [core] = engine_cores(first[1], 1)
    assert first[0] == lost
    of_worker(lambda self: self.scorer.score_cache.clear())  # or nothing would reach the engine
    assert asyncio.run(scored_while(pool, core.kill)) == before
    second = of_worker(place_of)
    assert second[0] == lost and second[1] != first[1]
    assert asyncio.run(killed_under_way(lambda: cluster.remove_node(node, allow_graceful=False))) == before
    assert of_worker(place_of)[0] in others
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
