"""The host is untouched: the same rollouts through stock OpenRLHF and through the plugin give the same numbers.

Both sides run in one process each over real Ray actors and DeepSpeed: log-probs, advantages, PPO update, saved weights.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.host_arguments import arguments
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES
from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_training_flags

pytestmark = pytest.mark.stack

# What our estimators are where every response is one step, and those that read the outcome instead of step rewards or
# that compare step rewards by tokens.
TWINS = {
    "step_group": "group_norm",
    "step_returns": "rloo",
    "min_form_rloo": "rloo",
    "prime": "rloo",
    "tree": "rloo",
    "vine": "rloo",
    "spo": "rloo",
    "papo": "group_norm",
    "spro": "group_norm",
}
OUTCOME_ESTIMATORS = {"min_form_rloo", "tree", "vine", "spo", "papo", "spro"}
WITHOUT_TWIN = {"forked_tree"}
"""Its responses fork behind their first step; the host has nothing like it."""


def run(mode: str, folder: Path) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, mode, str(folder)],
        env=cpu_environment() | {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_without_process_flags_the_update_is_the_hosts_bit_for_bit(tmp_path):
    result = run("update", tmp_path)
    assert result["stock"]["advantages"] == result["plugin"]["advantages"]
    assert result["stock"]["loss"] == result["plugin"]["loss"]
    assert result["stock"]["weights"] == result["plugin"]["weights"]
    assert result["stock"]["weights"] != result["before"], "an update that changes nothing shows nothing"
    # Half of the responses are left out, so some micro-batches and optimizer steps of one response have nothing.
    assert result["filter"]["weights"] != result["before"]
    assert result["filter"]["figures"] and all(math.isfinite(value) for value in result["filter"]["figures"])


@pytest.fixture(scope="module")
def advantages(tmp_path_factory) -> dict:
    return run("advantages", tmp_path_factory.mktemp("advantages"))


def test_one_step_with_its_reward_on_the_last_token_is_the_hosts_scalar_reward(advantages):
    result = advantages["one_step"]
    assert set(result) == {*HOST_BASELINES, *ADVANTAGE_ESTIMATORS} - WITHOUT_TWIN
    for estimator, difference in result.items():
        assert difference < 1e-5, (estimator, difference)


def test_a_turns_reward_on_the_last_token_is_the_hosts_scalar_reward(advantages):
    result = advantages["turns"]
    assert set(result["one"]) == {*HOST_BASELINES}
    for estimator, difference in result["one"].items():
        assert difference < 1e-5, (estimator, difference)
    # A critic that says 1 everywhere, an outcome of 1, 20 observation tokens between two turns: all targets are 1.
    assert result["host_target"] == pytest.approx(0.95**20, abs=1e-6)
    assert result["targets"] == pytest.approx([1.0] * 6, abs=1e-6)


def test_batches_split_otherwise_give_the_same_advantages_and_switches_do_what_they_say(advantages):
    result = advantages["batches"]
    assert result["dynamic"] == result["plain"]
    lengths = [len(row) for row in result["plain"]]
    scaled = [[value * len(row) / 64 for value in row] for row in result["plain"]]
    for got, expected in zip(result["constant_length"], scaled, strict=True):
        assert got == pytest.approx(expected, abs=1e-6)
    # Half of each group of four is left out: none of its tokens is trained. The kept ones' baseline is their own.
    left_out = [row == [] for row in result["filter"]]
    assert [sum(left_out[start : start + 4]) for start in (0, 4)] == [2, 2]
    assert [len(row) for row in result["filter"]] == [
        0 if out else length for out, length in zip(left_out, lengths, strict=True)
    ]
    assert result["targets"] == ["Q: 1+1=?\nThink for maximum 7 tokens.", "Q: 2+2=?\nThink for maximum 7 tokens."]
    for start in (0, 4):
        assert sum(row[0] for row in result["filter"][start : start + 4] if row) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("estimator", ["rloo", "group_norm", "step_group"])
def test_process_rewards_and_penalties_keep_the_weights_that_were_asked_for(advantages, estimator):
    rows = {name: sum(rows, []) for name, rows in advantages["weights"][estimator].items()}
    parts = zip(rows["outcome"], rows["half"], rows["whole"], strict=True)
    assert any(abs(whole - outcome) > 0.1 for outcome, _, whole in parts)
    if estimator != "step_group":  # it divides by the deviation of the sum
        for outcome, half, whole in zip(rows["outcome"], rows["half"], rows["whole"], strict=True):
            assert 2 * (half - outcome) == pytest.approx(whole - outcome, abs=1e-5)
    for outcome, weighed in zip(rows["outcome"], rows["negative"], strict=True):
        assert weighed == pytest.approx(outcome if outcome > 0 else outcome / 2, abs=1e-6)
    # Without outcome and process reward the penalty is all there is.
    assert max(map(abs, rows["penalty"])) > 0.1


def rollouts(tokenizer, group_size: int):
    """Eight responses of different lengths with rewards, as the host's samples generator makes them."""
    import random

    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience

    from openrlhf_prm.tasks.arithmetic import demonstration, questions

    rng, samples = random.Random(0), []
    for question, label in questions("train", 8 // group_size, seed=0):
        prompt = tokenizer(question, add_special_tokens=False)["input_ids"]
        for _ in range(group_size):
            response = tokenizer(demonstration(question, rng), add_special_tokens=False)["input_ids"]
            response += [tokenizer.eos_token_id]
            actions = torch.zeros(len(prompt) + len(response), dtype=torch.long)
            actions[len(prompt) :] = 1
            # Equal responses have equal rewards.
            reward = torch.tensor([random.Random(str(response)).choice([0.0, 0.25, 1.0])])
            samples.append(
                Experience(
                    sequences=torch.tensor([prompt + response]),
                    attention_mask=torch.ones(1, len(actions), dtype=torch.long),
                    action_mask=actions[None, 1:],
                    prompts=[question],
                    labels=[label],
                    images=[None],
                    mm_train_inputs=[None],
                    rewards=reward,
                    scores=reward,
                    response_length=torch.tensor([len(response)]),
                    truncated=torch.tensor([False]),
                    total_length=torch.tensor([float(len(actions))]),
                    info={"reward": reward, "score": reward},
                )
            )
    return samples


def policy(folder: Path):
    import torch

    from examples.quickstart.make_policy import build_model, build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).to(torch.bfloat16).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    return str(folder / "policy"), tokenizer


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def compare_updates(folder: Path) -> dict:
    import ray
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.trainer.ray.launcher import RayActorGroup
    from openrlhf.trainer.ray.ppo_actor import PolicyModelActor
    from openrlhf.utils import get_strategy

    from openrlhf_prm.ppo.experience import ProcessExperienceMaker
    from openrlhf_prm.ppo.plugin_options import read_options
    from openrlhf_prm.ppo.rollout.records import StepRecord

    path, tokenizer = policy(folder)
    ray.init("local", include_dashboard=False, log_to_driver=False)
    result = {"before": weights_digest(folder / "policy")}
    filtered = ("--prm.model_name_or_path", "unused", "--process_reward.shaping", "filter")
    filtered += ("--process_reward.keep", "0.5", "--train.batch_size", "1", "--train.micro_batch_size", "1")
    for name, maker_class in (
        ("stock", RemoteExperienceMaker),
        ("plugin", ProcessExperienceMaker),
        ("filter", ProcessExperienceMaker),
    ):
        args = arguments(
            "group_norm",
            *("--actor.model_name_or_path", path, "--rollout.n_samples_per_prompt", "4", "--rollout.batch_size", "2"),
            *("--rollout.micro_batch_size", "3", "--train.batch_size", "4", "--train.micro_batch_size", "2"),
            *(filtered if name == "filter" else ()),
            *("--actor.adam.lr", "1e-3", "--algo.kl.init_coef", "0", *cpu_training_flags()),
            *("--ckpt.output_dir", str(folder / name), "--actor.num_gpus_per_node", "1"),
        )
        strategy = get_strategy(args)
        more = {"options": read_options(args)} if maker_class is ProcessExperienceMaker else {}
        group = RayActorGroup(1, 1, PolicyModelActor, num_gpus_per_actor=1)
        ray.get(group.async_init_model_from_pretrained(strategy, path, 10, None))
        maker = maker_class(group, None, None, None, FixedKLController(0.0), strategy, tokenizer, **more)
        samples = rollouts(tokenizer, 4)
        for index, sample in enumerate(samples):
            length = int(sample.action_mask.sum())
            sample.steps = StepRecord((length // 2, length), (0.1 * index, 0.5), 0.0, 0.0)
        experiences = maker.make_experience_batch(samples)
        ray.get(group.async_run_method_batch(method_name="append", experience=experiences))
        status = ray.get(group.async_run_method(method_name="fit", kl_ctl=0.0))[0]
        ray.get(group.async_save_model())
        result[name] = {
            "advantages": [experience.advantages.tolist() for experience in experiences],
            "loss": status["policy_loss"],
            "figures": [value for value in status.values() if isinstance(value, float)],
            "weights": weights_digest(folder / name),
        }
    return result


def compare_one_step(folder: Path) -> dict:
    import torch
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.utils import get_strategy

    from openrlhf_prm.ppo.experience import ProcessExperienceMaker
    from openrlhf_prm.ppo.plugin_options import read_options
    from openrlhf_prm.ppo.rollout.records import StepRecord

    _, tokenizer = policy(folder)
    result = {}
    for estimator in [*HOST_BASELINES, *(set(ADVANTAGE_ESTIMATORS) - WITHOUT_TWIN)]:
        advantages = {}
        for side in ("host", "plugin"):
            ours = side == "plugin"
            samples = rollouts(tokenizer, 4)
            chosen = estimator if ours else TWINS.get(estimator, estimator)
            # The sum form on the probability scale hands a score of p over as a reward of p.
            prm = ("--prm.model_name_or_path", "unused", "--process_reward.shaping", "sum")
            # These whiten, which the host's rloo does not.
            plain = ("--algo.advantage.no_std_norm",) if estimator in ("vine", "spo", "prime", "min_form_rloo") else ()
            # Its log-ratios are credit on every token.
            plain += ("--algo.advantage.beta", "0") if ours and estimator == "spro" else ()
            args = arguments(chosen, "--rollout.n_samples_per_prompt", "4", *(prm if ours else ()), *plain)
            args.process_reward.score_scale = "probability"
            maker_class = ProcessExperienceMaker if ours else RemoteExperienceMaker
            more = {"options": read_options(args)} if ours else {}
            maker = maker_class(None, None, None, None, FixedKLController(0.01), get_strategy(args), tokenizer, **more)
            generator = torch.Generator().manual_seed(1)
            for index, sample in enumerate(samples):
                sample.index = [index]
                sample.kl = torch.rand(sample.action_mask.shape, generator=generator)
                sample.values = torch.rand(sample.action_mask.shape, generator=generator)
                if ours:
                    length = int(sample.action_mask.sum())
                    # As the step's reward, or as the outcome for estimators whose value is the outcome's.
                    as_outcome = estimator in OUTCOME_ESTIMATORS
                    score = 0.0 if as_outcome else float(sample.rewards)
                    states = {"branches": (), "probabilities": (0.5,) * length} if as_outcome else {}
                    sample.steps = StepRecord((length,), (score,), 0.0, 0.0, **states)
                    sample.rewards = sample.rewards if as_outcome else torch.zeros(1)
            if ours:
                maker._records = [sample.steps for sample in samples]
            experiences = maker.compute_advantages_and_returns(samples)
            mask = [experience.action_mask.bool() for experience in experiences]
            advantages[side] = torch.cat([e.advantages[m] for e, m in zip(experiences, mask, strict=True)])
        result[estimator] = float((advantages["host"] - advantages["plugin"]).abs().max())
    return result


def compare_batches(folder: Path) -> dict:
    """The advantages of each sample, in rollout order."""
    import torch
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.utils import get_strategy

    from openrlhf_prm.ppo.experience import ProcessExperienceMaker
    from openrlhf_prm.ppo.plugin_options import read_options
    from openrlhf_prm.ppo.rollout.records import StepRecord
    from openrlhf_prm.ppo.samples import TargetedPromptDataset

    _, tokenizer = policy(folder)
    common = ("--rollout.n_samples_per_prompt", "4", "--prm.model_name_or_path", "unused", "--rollout.micro_batch_size")
    common += ("3", "--actor.num_gpus_per_node", "1", "--rollout.max_new_tokens", "64", "--algo.kl.init_coef", "0")

    def per_sample(field: str, estimator: str, *flags: str) -> list[list[float]]:
        args = arguments(estimator, *common, *flags)
        strategy, options = get_strategy(args), read_options(args)
        controller = FixedKLController(0.0)
        maker = ProcessExperienceMaker(None, None, None, None, controller, strategy, tokenizer, options=options)
        samples = rollouts(tokenizer, 4)
        for index, sample in enumerate(samples):
            length = int(sample.action_mask.sum())
            sample.steps = StepRecord((length // 2, length), (0.1 * index, 0.5), 0.0, 0.0)
        maker._records = [sample.steps for sample in samples]
        batches = maker.split_rollout_samples(samples)
        for batch in batches:
            batch.kl = torch.zeros(batch.action_mask.shape)
            batch.values = torch.full(batch.action_mask.shape, 0.25)
        rows = {}
        for batch in maker.compute_advantages_and_returns(batches):
            for row, index in enumerate(batch.index):
                rows[index] = getattr(batch, field)[row][batch.action_mask[row].bool()].tolist()
        return [rows[index] for index in range(len(samples))]

    cases = {
        "plain": (),
        "dynamic": ("--train.dynamic_batch_enable", "--rollout.max_tokens_per_gpu", "256"),
        "constant_length": ("--algo.advantage.constant_length_norm", "--actor.loss_agg_mode", "seq-mean-token-mean"),
        "filter": ("--process_reward.shaping", "filter", "--algo.advantage.no_std_norm"),
    }
    result = {case: per_sample("advantages", "step_group", *flags) for case, flags in cases.items()}
    penalty = ("--length_penalty.kind", "kimi", "--process_reward.outcome_coef", "0", "--process_reward.coef", "0")
    weights = {
        "outcome": ("--process_reward.coef", "0"),
        "half": ("--process_reward.shaping", "sum", "--process_reward.coef", "0.5"),
        "whole": ("--process_reward.shaping", "sum"),
        "penalty": penalty,
        "negative": ("--process_reward.coef", "0", "--algo.advantage.negative_weight", "0.5"),
    }
    result["weights"] = {
        estimator: {name: per_sample("advantages", estimator, *flags) for name, flags in weights.items()}
        for estimator in ("rloo", "group_norm", "step_group")
    }
    target = ("--length_penalty.kind", "lcpo_max", "--length_penalty.target_min", "7")
    target += ("--length_penalty.target_max", "7")
    args = arguments("step_group", *common, *target, "--data.input_key", "question")
    rows = [{"question": "Q: 1+1=?\n"}, {"question": "Q: 2+2=?\n"}]
    penalty = read_options(args).penalty
    result["targets"] = TargetedPromptDataset(rows, tokenizer, get_strategy(args), penalty=penalty).prompts
    return result


def compare_turns(folder: Path) -> dict:
    """Responses of one turn that holds all of the reward; and GAE over two turns with an observation between them."""
    import torch
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.utils import get_strategy

    from openrlhf_prm.ppo.experience import ProcessExperienceMaker
    from openrlhf_prm.ppo.plugin_options import read_options
    from openrlhf_prm.ppo.rollout.records import StepRecord

    _, tokenizer = policy(folder)
    flags = ("--rollout.n_samples_per_prompt", "4", "--train.agent_func_path", "agent.py")

    def makers(estimator: str) -> tuple:
        stock = arguments(estimator, *flags)
        turns = arguments(estimator, *flags, "--credit.turn_rewards")
        host = RemoteExperienceMaker(None, None, None, None, FixedKLController(0.01), get_strategy(stock), tokenizer)
        ours = ProcessExperienceMaker(
            *(None, None, None, None, FixedKLController(0.01), get_strategy(turns), tokenizer),
            options=read_options(turns),
        )
        return host, ours

    result = {"one": {}}
    for estimator in HOST_BASELINES:
        advantages = []
        for maker in makers(estimator):
            samples = rollouts(tokenizer, 4)
            generator = torch.Generator().manual_seed(1)
            for index, sample in enumerate(samples):
                length = int(sample.action_mask.sum())
                paid = (float(sample.rewards),)
                sample.index = [index]
                sample.kl = torch.rand(sample.action_mask.shape, generator=generator)
                sample.values = torch.rand(sample.action_mask.shape, generator=generator)
                sample.steps = StepRecord((length,), None, 0.0, 0.0, turn_ends=(length,), turn_rewards=paid)
            maker._records = [sample.steps for sample in samples]
            experiences = maker.compute_advantages_and_returns(samples)
            advantages.append(torch.cat([e.advantages[e.action_mask.bool()] for e in experiences]))
        result["one"][estimator] = float((advantages[0] - advantages[1]).abs().max())

    mask = torch.tensor([[0, *[1] * 3, *[0] * 20, *[1] * 3]])
    rewards, values = torch.zeros(mask.shape), torch.ones(mask.shape)
    rewards[0, -1] = 1.0
    host, ours = makers("gae")
    (_, stock), (_, targets) = (
        maker.get_advantages_and_returns(values, rewards, mask, 1.0, 0.95) for maker in (host, ours)
    )
    result["host_target"] = float(stock[0, 3])
    result["targets"] = targets[mask.bool()].tolist()
    return result


def compare_advantages(folder: Path) -> dict:
    batches = compare_batches(folder)
    return {
        "one_step": compare_one_step(folder),
        "turns": compare_turns(folder),
        "batches": batches,
        "weights": batches.pop("weights"),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    modes = {"update": compare_updates, "advantages": compare_advantages}
    print(json.dumps(modes[sys.argv[1]](Path(sys.argv[2]))))
