"""What reaches the host's update from episodes of several attempts: its real experience maker under ours. No engine."""

import functools
from dataclasses import replace

import pytest
import torch

from benchmarks.host_arguments import arguments
from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.self_correction.records import Attempts

arguments = functools.cache(arguments)
BETWEEN = 2
KL = 0.5


class Words:
    pad_token_id = 0

    def batch_decode(self, rows, **_):
        return [" ".join(map(str, row)) for row in rows]


def episode(lengths, rewards):
    """Attempts of so many tokens behind a prompt of three, two foreign tokens between them."""
    from openrlhf.trainer.ppo_utils.experience import Experience

    mask = [0] * 3
    for place, length in enumerate(lengths):
        mask += [0] * (BETWEEN if place else 0) + [1] * length
    own = iter(range(100, 200))
    reward = torch.tensor([rewards[-1]])
    made = Experience(
        sequences=torch.tensor([[next(own) if action else 9 for action in mask]]),
        attention_mask=torch.ones(1, len(mask), dtype=torch.long),
        action_mask=torch.tensor([mask[1:]]),
        prompts=["p"],
        labels=["l"],
        images=[None],
        mm_train_inputs=[None],
        rewards=reward,
        scores=reward.clone(),
        response_length=torch.tensor([sum(lengths)]),
        truncated=torch.tensor([False]),
        total_length=torch.tensor([float(len(mask))]),
        info={"reward": reward.clone(), "kl": torch.zeros(1)},
    )
    ends = tuple(sum(lengths[: place + 1]) for place in range(len(lengths)))
    made.attempts = Attempts(ends, tuple(rewards), tuple(rewards), (False,) * len(rewards))
    return made


def flags_of(*flags):
    return arguments(
        "rloo",
        *("--rollout.n_samples_per_prompt", "3", "--rollout.micro_batch_size", "2", "--actor.num_gpus_per_node", "1"),
        *flags,
    )


def maker_of(kind, args, **more):
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.utils import get_strategy

    return kind(*(None,) * 4, FixedKLController(args.algo.kl.init_coef), get_strategy(args), Words(), **more)


def batches_of(maker, episodes):
    batches = maker.split_rollout_samples(episodes)
    for batch in batches:
        generator = torch.Generator().manual_seed(len(batch.index))
        batch.kl = KL + 0.1 * torch.rand(batch.action_mask.shape, generator=generator)
    return batches


def experiences(episodes, *flags, records=(), rollouts=0):
    from openrlhf_prm.ppo.plugin_options import read_options
    from openrlhf_prm.ppo.self_correction.experience import SelfCorrectionExperienceMaker

    args = flags_of(*flags)
    maker = maker_of(SelfCorrectionExperienceMaker, args, options=read_options(args))
    maker._records, maker._attempts = list(records), [made.attempts for made in episodes]
    maker.mixer.rollouts = rollouts
    return maker.compute_advantages_and_returns(batches_of(maker, episodes))


def rows(batches):
    """Episode by episode: advantages of the policy's own tokens."""
    by_place = {
        index: batch.advantages[row][batch.action_mask[row].bool()].tolist()
        for batch in batches
        for row, index in enumerate(batch.index)
    }
    return [by_place[index] for index in range(len(by_place))]


LENGTHS = [(4, 2), (2, 3), (3, 1)]
REWARDS = [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
NO_KL = ("--algo.kl.init_coef", "0", "--self_correction.stage")


def of(rewards, lengths=LENGTHS):
    return [episode(*pair) for pair in zip(lengths, rewards, strict=True)]


def test_each_attempts_tokens_get_that_attempts_reward_and_the_bonus_is_the_seconds():
    first, second, third = rows(experiences(of(REWARDS), *NO_KL, "2"))
    assert first == pytest.approx([1.0] * 4 + [0.5 - 5.0] * 2)
    assert second == pytest.approx([-0.5] * 2 + [0.5 + 10.0] * 3)
    assert third == pytest.approx([-0.5] * 3 + [-1.0 - 5.0])


def gradients(batches):
    """Of the host's policy loss, on policy, to every token's log-probability."""
    from openrlhf.models.loss import PolicyLoss

    found = []
    for batch in batches:
        log_probs = torch.zeros(batch.action_mask.shape, requires_grad=True)
        PolicyLoss()(log_probs, log_probs.detach(), batch.advantages, batch.action_mask)[0].backward()
        found.append(log_probs.grad)
    return found


def test_in_stage_1_the_first_reward_changes_no_gradient():
    base = gradients(experiences(of(REWARDS), "--self_correction.stage", "1"))
    for others in ([0.0, 0.0, 0.0], [0.0, 1.0, 1.0]):
        changed = [(first, second) for first, (_, second) in zip(others, REWARDS, strict=True)]
        got = gradients(experiences(of(changed), "--self_correction.stage", "1"))
        assert all(map(torch.equal, base, got)) and any(grad.any() for grad in base)


def test_in_stage_2_the_second_reward_moves_no_first_attempt():
    changed = [(first, 1.0 - second) for first, second in REWARDS]
    both = [rows(experiences(of(rewards), "--self_correction.stage", "2")) for rewards in (REWARDS, changed)]
    for (first, _), one, other in zip(LENGTHS, *both, strict=True):
        assert one[:first] == other[:first] and one[first:] != other[first:]


def test_kl_is_charged_attempt_by_attempt_with_the_stages_coefficient():
    same = [(0.0, 0.0)] * 3
    for stage, coefficients in (("1", (0.25, 0.0)), ("2", (0.02, 0.02))):
        flag = ("--self_correction.beta2", "0.25") if stage == "1" else ("--self_correction.beta1", "0.02")
        batches = experiences(of(same), "--self_correction.stage", stage, *flag)
        for (first, second), got in zip(LENGTHS, rows(batches), strict=True):
            for coefficient, length, part in zip(
                coefficients, (first, second), (got[:first], got[first:]), strict=True
            ):
                for place, value in enumerate(part):  # returns: what is left of the attempt, and nothing beyond it
                    left = length - place
                    assert -coefficient * (KL + 0.1) * left <= value <= -coefficient * KL * left


@pytest.mark.parametrize("flags", [(), ("--self_correction.alpha", "0"), ("--process_reward.outcome_coef", "1")])
def test_one_attempt_is_the_hosts_rloo_bit_for_bit(flags):
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    rewards = [(1.0,), (0.0,), (0.3,), (1.0,), (0.0,), (1.0,)]
    lengths = [(5,), (2,), (7,), (1,), (3,), (4,)]
    stock = maker_of(RemoteExperienceMaker, flags_of())
    expected = stock.compute_advantages_and_returns(batches_of(stock, of(rewards, lengths)))
    one = ("--self_correction.stage", "2", "--self_correction.attempts", "1", *flags)
    got = experiences(of(rewards, lengths), *one)
    for theirs, ours in zip(expected, got, strict=True):
        assert torch.equal(theirs.advantages, ours.advantages) and torch.equal(theirs.returns, ours.returns)
        assert torch.equal(theirs.rewards, ours.rewards) and ours.kl is None
        for name, column in theirs.info.items():
            assert torch.equal(column, ours.info[name]), name


def test_the_stage_changes_after_its_rollouts_also_where_a_run_is_resumed():
    flags = ("--self_correction.stage", "1", "--self_correction.stage1_steps", "3")
    for rollouts, stage in ((0, 1), (2, 1), (3, 2), (10, 2)):
        batches = experiences(of(REWARDS), *flags, rollouts=rollouts)
        assert {float(value) for batch in batches for value in batch.info["self_correction/stage"]} == {stage}
        paid = rows(batches)[0][0] > 0  # the first attempt's KL alone is a price
        assert paid is (stage == 2)
    forever = experiences(of(REWARDS), "--self_correction.stage", "1", rollouts=99)
    assert forever[0].info["self_correction/stage"].tolist() == [1, 1]


PRM = ("--prm.model_name_or_path", "unused", "--process_reward.shaping", "sum", "--process_reward.score_scale")


def test_step_rewards_stay_within_their_attempt_and_are_compared_with_the_same_attempts():
    records = [
        StepRecord((2, 4, 6), (0.4, 0.2, 0.9), 0.0, 0.0),
        StepRecord((2, 5), (0.3, 0.6), 0.0, 0.0),
        StepRecord((3, 4), (0.3, 0.6), 0.0, 0.0),
    ]
    same = [(0.0, 0.0)] * 3
    first, second, third = rows(experiences(of(same), *NO_KL, "2", *PRM, "probability", records=records))
    # First attempts: 0.4 and 0.2 less 0.3, the mean of the others' steps; 0.3 less 0.3.
    assert first == pytest.approx([0.0, 0.0, -0.1, -0.1, 0.3, 0.3], abs=1e-6)
    assert second == pytest.approx([0.0, 0.0, -0.15, -0.15, -0.15], abs=1e-6)
    assert third == pytest.approx([0.0] * 3 + [-0.15], abs=1e-6)
    in_stage_1 = rows(
        experiences(of(same), *NO_KL, "1", "--self_correction.beta2", "0", *PRM, "probability", records=records)
    )
    assert [row[:2] for row in in_stage_1] == [[0.0, 0.0]] * 3 and in_stage_1[0][4:] == first[4:]


def test_lengths_are_judged_attempt_by_attempt():
    flags = (*NO_KL, "2", "--self_correction.alpha", "0", "--length_penalty.kind", "kimi")
    got = rows(experiences(of([(1.0, 1.0)] * 3), *flags))
    # Of 4, 2, 3 tokens: -0.5, 0.5, 0 less the others' mean. Of 2, 3, 1: 0, -0.5, 0.5.
    assert [row[0] for row in got] == pytest.approx([-0.75, 0.75, 0.0])
    assert [row[-1] for row in got] == pytest.approx([0.0, -0.75, 0.75])


def column(batches, name):
    found = {i: float(b.info[name][row]) for b in batches for row, i in enumerate(b.index)}
    return [found[place] for place in range(len(found))]


def test_what_is_logged():
    batches = experiences(of([(1.0, 0.0), (0.0, 1.0), (0.0, 1.0)]), "--self_correction.stage", "2")
    logged = {name.rpartition("/")[2]: column(batches, name) for name in batches[0].info if "/" in name}
    assert logged["accuracy_t1"] == [1, 0, 0] and logged["accuracy_t2"] == [0, 1, 1] == logged["accuracy"]
    assert logged["wrong_to_right"] == [0, 1, 1] and logged["right_to_wrong"] == [1, 0, 0]
    gained = sum(logged["wrong_to_right"]) - sum(logged["right_to_wrong"])
    assert sum(logged["difference"]) == sum(logged["accuracy_t2"]) - sum(logged["accuracy_t1"]) == gained
    assert logged["copied"] == [0, 0, 0] and logged["edit_ratio"] == [1, 1, 1] and logged["edits_80_100"] == [1, 1, 1]
    assert logged["edits_0_20"] == [0, 0, 0]


def test_a_policy_that_hands_in_its_attempt_again_is_warned_of(caplog):
    episodes = of([(1.0, 1.0)] * 3, [(3, 3)] * 3)
    for made in episodes:
        made.sequences[0, -3:] = made.sequences[0, 3:6]
    batches = experiences(episodes, "--self_correction.stage", "2")
    assert column(batches, "self_correction/copied") == [1, 1, 1] == column(batches, "self_correction/edits_0_20")
    assert "100% of the attempts repeat the one before" in caplog.text
    caplog.clear()
    experiences(of(REWARDS), "--self_correction.stage", "2")
    assert "repeat the one before" not in caplog.text


def test_an_attempt_without_tokens_trains_with_the_others():
    got = rows(experiences(of(REWARDS, [(0, 2), (2, 0), (3, 1)]), *NO_KL, "2"))
    assert got[0] == pytest.approx([-4.5] * 2) and got[1] == pytest.approx([-0.5] * 2)


def test_an_offline_first_attempt_moves_no_figure_and_trains_the_second():
    offline = [replace(made.attempts, offline=True) for made in of(REWARDS, [(0, 2), (0, 3), (0, 1)])]
    episodes = of([*REWARDS, *[(1.0, 1.0)] * 3], [(0, 2), (0, 3), (0, 1), *LENGTHS])
    for made, record in zip(episodes, offline, strict=False):
        made.attempts = record
    flags = (*NO_KL, "2", "--self_correction.offline_share", "0.5", "--self_correction.offline_file", "base.jsonl")
    batches = experiences(episodes, *flags)
    got = rows(batches)
    assert got[0] == pytest.approx([-4.5] * 2) and got[1] == pytest.approx([10.5] * 3)
    assert column(batches, "self_correction/accuracy_t1") == [1.0] * 6
    assert column(batches, "self_correction/offline") == [1, 1, 1, 0, 0, 0]
