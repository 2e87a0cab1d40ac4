"""Where processes go by Ray's rules, in cases small enough to follow by hand. Against Ray: tests/stack."""

import pytest

from openrlhf_prm.cluster.demands import Group, Role
from openrlhf_prm.cluster.nodes import described
from openrlhf_prm.cluster.placement import DoesNotFit, Node, place


def group(bundles: int, *roles: Role) -> Group:
    return Group(bundles=bundles, roles=roles or (role("model", bundles),))


def role(name: str, processes: int, gpus: float = 1.0, **more) -> Role:
    return Role(name=name, processes=processes, gpus=gpus, flags=f"--{name}", **more)


def where(demands, *gpus: int, cpus: float | None = None) -> list[tuple[int, ...]]:
    nodes = [Node(f"node {index}", count, cpus) for index, count in enumerate(gpus)]
    return [placed.nodes for placed in place(demands, nodes)]


def test_a_group_goes_node_by_node_to_the_emptiest_first():
    assert where([group(4)], 2, 8) == [(1, 1, 1, 1)]
    assert where([group(9)], 8, 8) == [(0,) * 8 + (1,)]
    assert where([group(4), group(4)], 8, 6) == [(0,) * 4, (1,) * 4]  # 6 of 6 left against 4 of 8


def test_a_group_that_is_one_gpu_too_large_does_not_fit():
    where([group(16)], 8, 8)
    with pytest.raises(DoesNotFit) as error:
        where([group(8), group(9)], 8, 8)
    assert error.value.demand.total == 9 and error.value.always


def test_several_gpus_of_a_process_lie_on_one_node():
    assert where([role("prm", 2, 4)], 4, 4) == [(0, 1)]
    with pytest.raises(DoesNotFit):
        where([role("prm", 1, 4)], 3, 3)
    with pytest.raises(DoesNotFit):
        where([group(4), role("prm", 1, 4)], 3, 5)  # the group takes 4 of 5


def test_what_ray_may_choose_badly_does_not_fit():
    """Two single processes on one node leave the other whole; one on each leave no node whole."""
    with pytest.raises(DoesNotFit) as error:
        where([role("actor", 2), role("prm", 1, 4)], 4, 4)
    assert error.value.demand.name == "prm" and not error.value.always
    assert len(where([role("actor", 1), role("prm", 1, 4)], 4, 4)) == 2  # wherever the one goes


def test_shares_come_from_one_gpu():
    assert where([role("prm", 3, 0.3)], 1) == [(0, 0, 0)]
    for processes, share in ((4, 0.3), (2, 0.6)):
        with pytest.raises(DoesNotFit):
            where([role("prm", processes, share)], 1)
    assert where([role("prm", 2, 0.5), role("vllm", 1)], 2) == [(0, 0), (0,)]  # the fuller GPU first
    with pytest.raises(DoesNotFit):
        where([role("prm", 2, 0.6), role("vllm", 1)], 2)


def test_every_bundle_takes_a_cpu_and_the_trainer_needs_one_for_a_moment():
    trainer = role("trainer", 1, 0.0, holds_cpus=False)
    where([group(4), trainer, role("prm", 1)], 8, cpus=5)
    with pytest.raises(DoesNotFit) as error:
        where([group(4), trainer], 8, cpus=4)
    assert error.value.demand.name == "trainer"
    with pytest.raises(DoesNotFit):
        where([group(5)], 8, cpus=4)


def test_many_nodes_cost_no_time():
    nodes = described("64x8x80")
    place([role("actor", 64), role("ref", 64), role("prm", 512, 0.5)], nodes)
    place([role("actor", 12), role("prm", 32, 8)], nodes)


def test_what_shares_a_group_fits_into_it():
    with pytest.raises(ValueError, match=r"--critic: critic needs 9 GPUs of the 8 that it shares with actor \(--actor"):
        group(8, role("actor", 8, 0.2), role("critic", 9, 0.2))
    roles = [role(name, 2, 0.2) for name in "abcde"]
    assert group(2, *roles).total == 2
    with pytest.raises(ValueError, match="--f: the shares of one GPU are more than 1: a 0.2 .* f 0.1"):
        group(2, *roles, role("f", 1, 0.1))
    with pytest.raises(ValueError, match="vllm needs 8 GPUs of the 6"):
        group(6, role("actor", 6, 0.2), role("vllm", 4, 0.2, spans=2))


def test_a_share_above_one_is_a_whole_number():
    with pytest.raises(ValueError, match="--prm: 1.5 GPUs for a process"):
        role("prm", 1, 1.5)


def test_descriptions_of_clusters():
    assert described("8x80") == [Node("node 0", 8, None, 80.0)]
    assert [(node.gpus, node.gib) for node in described("2x8x80, 1x4x23.5")] == [(8, 80.0), (8, 80.0), (4, 23.5)]
    for wrong in ("8", "8x", "0x80", "8x0", "a8x80", "8x80x1x1", "0x8x80", ""):
        with pytest.raises(ValueError, match="must be GPUSxGIB as in 8x80"):
            described(wrong)
