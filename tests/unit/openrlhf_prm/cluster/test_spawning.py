"""In what order engines start, what Ray is asked for, and what is said meanwhile."""

import os
from types import SimpleNamespace

import pytest

from openrlhf_prm.cluster import spawning
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.spawning import Place, found_from_anywhere, spawn


@pytest.fixture
def log(monkeypatch):
    """What is asked of Ray, in order."""
    events: list = []

    def options(**given):
        events.append(given)
        return SimpleNamespace(remote=lambda *args: (given["name"], args))

    monkeypatch.setattr(spawning.ray, "remote", lambda kind: SimpleNamespace(options=options))
    monkeypatch.setattr(spawning, "until_ready", lambda workers, name, gpus: events.append(f"wait for {len(workers)}"))
    return events


def test_engines_that_share_gpus_start_one_after_the_other(log):
    workers = spawn(object, "prm", EngineOptions("owner/prm", num_engines=3, gpus=0.5), "family", max_restarts=-1)
    asked = [event if isinstance(event, str) else event["name"][-1] for event in log]
    assert asked == ["0", "wait for 1", "1", "wait for 1", "2", "wait for 1", "wait for 3"]
    assert log[0] == {"num_cpus": 1, "num_gpus": 0.5, "max_restarts": -1, "name": "openrlhf_prm_prm_0"}
    assert [args[1:] for _, args in workers] == [("family",)] * 3


def test_engines_with_gpus_of_their_own_start_together(log):
    spawn(object, "prm", EngineOptions("owner/prm", num_engines=2, gpus=4, tensor_parallel_size=4))
    assert [isinstance(event, str) for event in log] == [False, False, True] and log[0]["num_gpus"] == 4


def test_engines_in_a_group_go_to_their_places(log):
    places = [Place("group", (3,), 0.2), Place("group", (4, 5), 0.2)]
    workers = spawn(object, "prm", EngineOptions("owner/prm", num_engines=2), places=places)
    assert [event if isinstance(event, str) else event["num_gpus"] for event in log] == [0.2, 0, "wait for 2"]
    where = [event["scheduling_strategy"] for event in log[:2]]
    assert [strategy.placement_group_bundle_index for strategy in where] == [3, 4]
    assert all(strategy.placement_group_capture_child_tasks for strategy in where)
    assert [args[-1] for _, args in workers] == places


def test_a_checkpoint_is_found_from_any_folder(tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prm").mkdir()
    assert found_from_anywhere("prm") == str(tmp_path / "prm") and found_from_anywhere("owner/prm") == "owner/prm"
    [(_, (options,))] = spawn(object, "prm", EngineOptions("prm"))
    assert options.model == str(tmp_path / "prm")


def test_what_is_waited_for_is_said(monkeypatch, caplog):
    """Two workers, of which the second is ready at the third look."""
    looks = [(["a"], ["b"]), (["a"], ["b"]), (["a", "b"], [])]
    monkeypatch.setattr(spawning.ray, "wait", lambda ready, **_: looks.pop(0))
    monkeypatch.setattr(spawning.ray, "get", lambda ready: ready)
    monkeypatch.setattr(spawning.ray, "available_resources", lambda: {"CPU": 3.0})
    monkeypatch.setattr(spawning.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    workers = [SimpleNamespace(ready=SimpleNamespace(remote=lambda name=name: name)) for name in "ab"]
    spawning.until_ready(workers, "annotation", 2)
    assert [record.getMessage() for record in caplog.records] == [
        "still waiting for 1 of 2 annotation workers, which take 2 GPUs each; free are 0 of 2 GPUs and 3 of 4 CPUs of "
        "the cluster"
    ] * 2


def test_vllm_is_told_where_the_workers_of_a_split_engine_go(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    for name in ("RAY_ADDRESS", "VLLM_RAY_PER_WORKER_GPUS", "VLLM_RAY_BUNDLE_INDICES"):
        monkeypatch.setenv(name, "")  # to be taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(spawning.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    spawning.see_own_gpus(Place("group", (2, 3), 0.2))
    told = {name: value for name, value in os.environ.items() if "VISIBLE_DEVICES" in name or "VLLM_RAY" in name}
    assert told == {
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
        "VLLM_RAY_PER_WORKER_GPUS": "0.2",
        "VLLM_RAY_BUNDLE_INDICES": "2,3",
    }
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("engines", "given", "memory"),
    [(1, None, 0.36), (2, None, 0.18), (2, 0.3, 0.15)],
)
def test_what_vllm_is_told_of_a_sleeping_prm_in_a_group(monkeypatch, engines, given, memory):
    """A family of two models has two engines, which share what is a worker's."""
    import vllm.platforms

    import vllm_prm.checkpoint
    from openrlhf_prm.cluster import engine_options
    from openrlhf_prm.cluster.workers import PRMWorker
    from vllm_prm.scorer import StepScorer

    told: dict = {}
    monkeypatch.setattr(engine_options, "on_cpu", lambda: False)
    monkeypatch.setattr(type(vllm.platforms.current_platform), "is_sleep_mode_available", lambda self: True)
    monkeypatch.setattr(
        vllm_prm.checkpoint, "load_served_family", lambda model, family: SimpleNamespace(engines=engines)
    )
    monkeypatch.setattr(StepScorer, "from_pretrained", lambda model, **given: told.update(given))
    worker = object.__new__(PRMWorker)
    worker.options = EngineOptions("prm", share=0.4, tensor_parallel_size=2, gpu_memory_utilization=given)
    worker.family, worker.sleeps, worker.place = None, True, Place("group", (2, 3), 0.2)
    worker._start()
    assert told["gpu_memory_utilization"] == pytest.approx(memory)
    assert told["distributed_executor_backend"] == "ray" and told["tensor_parallel_size"] == 2
    assert told["enable_sleep_mode"] is True and told["engine"] == "async"
