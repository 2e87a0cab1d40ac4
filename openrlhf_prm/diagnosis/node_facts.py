"""What every node of the Ray cluster says about itself. Joins the cluster, or starts one: for a process apart."""

from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.diagnosis import machine_facts


def collect(paths: list[str], groups: list[str], limit_s: float) -> list[dict]:
    """Of every node that is alive its `address`, `gpus`, and the `facts` of a worker there, or the `fault` that its
    task made; a node that has not answered in `limit_s` is one too.

    Raises what `ray.init` raises.
    """
    prepare_environment()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from openrlhf_prm.cluster.joining import join

    join(include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.cloudpickle.register_pickle_by_value(machine_facts)  # a node without this project answers too
    task = ray.remote(num_cpus=0, max_retries=0)(machine_facts.collect)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            paths, groups
        )
        for node in nodes
    ]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=limit_s)
    answers = []
    for node, reference in zip(nodes, asked, strict=True):
        answer = {"address": node["NodeManagerAddress"], "gpus": node["Resources"].get("GPU", 0), "fault": ""}
        if reference not in answered:
            answer["fault"] = f"no answer in {limit_s:g} s"
        else:
            try:
                answer["facts"] = ray.get(reference)
            except ray.exceptions.RayError as error:
                answer["fault"] = str(error).strip().splitlines()[-1]
        answers.append(answer)
    ray.shutdown()
    return answers
