"""The host's own launch of PPO against a real Ray, with the processes themselves left out.

`openrlhf.cli.train_ppo_ray.train` and what our trainers start run as they are, and their placement groups are Ray's.
Where an actor would be started, its request is taken instead: inside a group the shares of each bundle are added up, as
Ray does; outside one Ray is asked for a group of that one bundle.
"""

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import openrlhf.cli.train_ppo_ray as host
import openrlhf.trainer.ray.launcher as launcher
import openrlhf.trainer.ray.vllm_engine as vllm_engine
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

import openrlhf_prm.cluster.spawning as spawning
import openrlhf_prm.cluster.workers as workers
import openrlhf_prm.ppo.online_prm as online_prm
import openrlhf_prm.ppo.trainers as trainers
from openrlhf_prm.ppo.demands import has_critic
from openrlhf_prm.ppo.plugin_options import read_options

PLACED, STUCK = "CREATED", ("NO_RESOURCES", "INFEASIBLE")


class NoRoom(Exception):
    """Ray has no room for a group, or a bundle none for a share."""


class Launched(Exception):
    """Everything that is asked for has its place."""


def is_placed(args: SimpleNamespace, monkeypatch) -> bool:
    """Whether Ray finds room for all that a run of these flags asks for."""
    args.critic.model_name_or_path = "owner/critic" if has_critic(args) else None
    launch = Launch(args)
    with monkeypatch.context() as patch:
        launch.leave_processes_out(patch)
        try:
            host.train(args)
        except Launched:
            return True
        except NoRoom:
            return False
        finally:
            launch.free()


class Launch:
    """What one launch has asked for so far."""

    def __init__(self, args: SimpleNamespace):
        self.args, self.wanted = args, read_options(args)
        self.groups: list = []
        self.shares: Counter = Counter()

    def group(self, bundles: list[dict], strategy: str = "PACK") -> Any:
        """A placement group of Ray's, which is there. Raises NoRoom where Ray says that it cannot be."""
        group = placement_group(bundles, strategy=strategy)
        self.groups.append(group)
        group.ready = lambda: None  # Ray's own starts a process to find out
        while True:
            said = placement_group_table(group)
            if said["state"] == PLACED:
                return group
            if said["stats"]["scheduling_state"] in STUCK:
                raise NoRoom(bundles)
            time.sleep(0.002)

    def free(self) -> None:
        """Gives the groups back; returns once Ray counts them as free."""
        for group in self.groups:
            remove_placement_group(group)
        while any(ray.available_resources().get(kind) != ray.cluster_resources()[kind] for kind in ("GPU", "CPU")):
            time.sleep(0.005)

    def options(self, *, num_gpus, num_cpus, scheduling_strategy=None, **rest) -> SimpleNamespace:
        """As of an actor's class."""

        def remote(*args, **kwargs) -> "Actor":
            if scheduling_strategy is None:
                self.group([{"GPU": num_gpus, "CPU": num_cpus}])
                return Actor(None)
            group, own = scheduling_strategy.placement_group, scheduling_strategy.placement_group_bundle_index
            share, bundles = num_gpus, (own,)
            if kwargs.get("bundle_indices"):  # vLLM's workers of a rollout engine
                share, bundles = kwargs["num_gpus"], kwargs["bundle_indices"]
            elif args and isinstance(args[-1], spawning.Place) and args[-1].split:  # of a PRM engine
                share, bundles = args[-1].share, args[-1].bundles
            for bundle in bundles:
                assert bundle < group.bundle_count
                self.shares[group.id, bundle] += round(share * 10_000)
                if self.shares[group.id, bundle] > 10_000:
                    raise NoRoom(f"bundle {bundle}")
            return Actor(group)

        return SimpleNamespace(remote=remote)

    def start_trainer(self, pretrain, strategy, actors, critic, reward, reference, engines, **rest) -> None:
        """What our trainers ask for. Raises Launched."""
        if not self.args.train.async_enable:
            self.place_trainer()
        if self.wanted.prm:
            trainers.start_scorer(self.wanted, self.args, engines, actors)
        if self.wanted.online_prm:
            colocated = self.wanted.online_prm.colocate
            group = actors._actor_handlers[0].group if colocated else None
            online_prm.OnlinePRM(self.wanted, strategy, SimpleNamespace(get_vocab=dict), group)
        if self.args.train.async_enable:
            self.place_trainer()
        raise Launched

    def place_trainer(self) -> None:
        """An actor without resources of its own needs a CPU to be placed, and gives it back."""
        before = len(self.groups)
        remove_placement_group(self.group([{"CPU": 1}]))
        del self.groups[before:]
        while sum(bundle["CPU"] for group in self.groups for bundle in group.bundle_specs) > (
            ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0) + 1e-6
        ):
            time.sleep(0.005)

    def leave_processes_out(self, patch) -> None:
        calls = _Ray(remote=lambda worker: self)
        for module in (host, launcher, vllm_engine, spawning, workers, trainers, online_prm):
            patch.setattr(module, "ray", calls)
        for module in (host, launcher, vllm_engine):
            patch.setattr(module, "placement_group", self.group)
        for name in ("PolicyModelActor", "ReferenceModelActor", "RewardModelActor", "CriticModelActor"):
            patch.setattr(host, name, self)
        patch.setattr(vllm_engine, "RolloutRayActor", self)
        patch.setattr(online_prm, "OnlinePRMActor", self)
        patch.setattr(trainers, "host_group", lambda actors: actors._actor_handlers[0].group)
        trainer = SimpleNamespace(remote=self.start_trainer)
        patch.setattr("openrlhf.trainer.ppo_trainer.PPOTrainer", trainer)
        patch.setattr("openrlhf.trainer.ppo_trainer_async.PPOTrainerAsync", trainer)


class Actor:
    """A handle whose every method has been called and answered."""

    def __init__(self, group):
        self.group = group

    def __getattr__(self, name: str):
        answer = ("localhost", 1) if name == "get_master_addr_port" else None
        return SimpleNamespace(remote=lambda *args, **options: answer)


class _Ray(SimpleNamespace):
    """`ray` where answers are there already."""

    util, put = ray.util, staticmethod(lambda value: value)
    is_initialized = staticmethod(lambda: True)
    get = staticmethod(lambda answer: answer)
    wait = staticmethod(lambda answers, **options: (answers, []))
