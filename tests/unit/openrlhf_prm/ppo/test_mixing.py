"""How rewards are mixed, on rollouts of two questions a reader can check by hand."""

import json

import pytest
import torch
from mixed_rollouts import mixer, prm_mixer, rollout

from openrlhf_prm.advantages.branch_values import Branches
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.length_penalties.penalty import PenaltyNeed
from openrlhf_prm.ppo.outcome_penalties import warm_up
from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.rollout_columns import RolloutColumns


def rewards(mixed) -> list[list[float]]:
    return [(mixed.weight * row).tolist() for row in mixed.process]


def test_process_rewards_are_scaled_shaped_and_weighted():
    mixed = prm_mixer("--process_reward.shaping", "sum", "--process_reward.coef", "2")(rollout())
    assert rewards(mixed) == [[1.0, -1.0]] * 4
    assert mixed.penalties.tolist() == [0.0] * 4 and mixed.kept.all()
    assert mixed.columns["process/accuracy"].mean() == 0.75
    assert mixed.columns["process/tokens_per_step"].tolist() == [2.0] * 4
    assert mixed.columns["process/hacking"].tolist() == [0.0] * 4


def test_warm_up_rises_from_nothing():
    assert [warm_up(n, 4) for n in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0
    mix = prm_mixer("--process_reward.shaping", "sum", "--process_reward.warmup_steps", "2")
    assert [rewards(mix(rollout()))[0] for _ in range(3)] == [[0.0, 0.0], [0.25, -0.25], [0.5, -0.5]]


def test_normalised_process_rewards_keep_their_mean():
    records = [StepRecord((1,), (score,), 0.0, 0.0) for score in (0.5, 1.0, 0.5, 1.0)]
    mixed = prm_mixer("--process_reward.shaping", "sum", "--process_reward.normalise")(rollout(records=records))
    joined = mixed.weight * torch.cat(mixed.process)
    assert joined.std().item() == pytest.approx(1.0) and joined.min() == 0.0
    one = rollout(
        outcomes=torch.ones(1), correct=torch.ones(1) > 0, lengths=torch.ones(1), truncated=torch.zeros(1) > 0,
        prompts=["p"], responses=["r"], token_ids=[[1]], records=records[:1], group_size=1,
    )  # fmt: skip
    assert rewards(prm_mixer("--process_reward.normalise")(one)) == [[0.0]]


def test_process_rewards_that_agree_are_not_blown_up_by_normalising():
    records = [StepRecord((1, 2), (0.9, 0.9), 0.0, 0.0)] * 4
    mixed = prm_mixer("--process_reward.shaping", "sum", "--process_reward.normalise")(rollout(records=records))
    assert mixed.weight == 1.0 and mixed.process[0].tolist() == pytest.approx([0.8, 0.8])


def test_long_responses_of_one_step_are_said_once(caplog):
    def warnings(mix, ends, lengths):
        caplog.clear()
        records = [StepRecord(row, (0.5,) * len(row), 0.0, 0.0) for row in ends]
        mix(rollout(records=records, lengths=torch.tensor(lengths)))
        return [record.getMessage() for record in caplog.records]

    mix, whole, split = prm_mixer("--steps.splitter", "newline"), (300,), (100, 300)
    assert warnings(mix, [whole, whole, split, split], [300.0] * 4) == [], "half of them"
    assert warnings(mix, [whole] * 4, [300.0, 300.0, 200.0, 200.0]) == [], "short ones may be one step"
    (said,) = warnings(mix, [whole, whole, whole, split], [300.0, 300.0, 600.0, 300.0])
    assert said.startswith("3 of 4 responses are one step each, of 400 tokens on average: --steps.splitter newline")
    assert warnings(mix, [whole] * 4, [300.0] * 4) == []


def test_truncated_and_malformed_responses_pay():
    mixed = prm_mixer(
        *("--process_reward.shaping", "sum", "--process_reward.truncation_penalty", "0.5"),
        *("--process_reward.format_pattern", "boxed", "--process_reward.format_penalty", "0.25"),
    )(rollout())
    assert mixed.penalties.tolist() == [0.0, -0.75, 0.0, 0.0]
    assert rewards(mixed) == [[0.5, -0.5], [0.0, -0.5], [0.5, -0.5], [0.5, -0.5]]
    assert mixed.columns["process/malformed"].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_the_filter_leaves_samples_out_and_the_prm_out_of_the_rewards():
    mixed = prm_mixer("--process_reward.shaping", "filter", "--process_reward.keep", "0.5")(rollout())
    assert mixed.kept.tolist() == [True, False, False, True]
    assert rewards(mixed) == [[0.0, 0.0]] * 4


def test_length_penalty_with_warm_up_and_its_state():
    mix = mixer(
        *("--length_penalty.kind", "lagrangian", "--length_penalty.target", "2", "--length_penalty.initial", "0.5"),
        *("--length_penalty.warmup_steps", "1"),
    )
    assert mix(rollout()).penalties.tolist() == [0.0] * 4
    mixed = mix(rollout())
    # The price stays where it was while it weighs nothing.
    assert mixed.penalties.tolist() == pytest.approx([-0.5] * 4)
    assert mixed.columns["length_multiplier"].tolist() == pytest.approx([0.6] * 4)


def test_targets_are_read_from_the_prompts():
    mix = mixer("--length_penalty.kind", "lcpo_exact", "--length_penalty.alpha", "0.1")
    prompts = ["p Think for 4 tokens."] * 2 + ["q Think for 10 tokens."] * 2
    assert mix(rollout(prompts=prompts)).penalties.tolist() == pytest.approx([0.0, 0.0, -0.6, -0.6])
    with pytest.raises(ValueError, match="--length_penalty.target_template"):
        mix(rollout())


@pytest.mark.parametrize("kind", LENGTH_PENALTIES)
def test_every_length_penalty_gets_what_it_declares(kind):
    ask = "Think for maximum" if kind == "lcpo_max" else "Think for"
    prompts = [f"p {ask} 4 tokens."] * 2 + [f"q {ask} 10 tokens."] * 2
    mixed = mixer("--length_penalty.kind", kind)(rollout(prompts=prompts))
    assert torch.isfinite(mixed.penalties).all() and mixed.penalties.shape == (4,)


def test_distinct_reasoning_is_rewarded():
    mixed = mixer("--diversity.coef", "0.5")(rollout())
    assert mixed.penalties.tolist() == [0.5, 0.0, 0.25, 0.25]


def test_without_steps_only_outcomes_are_mixed_and_watched():
    mixed = mixer("--length_penalty.kind", "kimi")(rollout(records=[]))
    assert mixed.process == [] and mixed.values is None
    assert set(mixed.columns) == {"process/outcome", "process/accuracy", "process/truncated", "length_penalty"}


def test_steps_without_a_prm_have_no_process_reward():
    mixed = mixer()(rollout(records=[StepRecord((2, 4), None, 0.5, 0.0)] * 4))
    assert rewards(mixed) == [[0.0, 0.0]] * 4 and mixed.values is None
    assert "process/repetition" in mixed.columns and "process/step_score" not in mixed.columns


def branched() -> RolloutColumns:
    state = Branches((1.0, 0.0), scores=(0.75, 0.25), probes=(0.75, 0.75), tokens=9)
    records = [StepRecord((2, 4), (0.5, 0.5), 0.0, 0.0, branches=(state,))] * 2
    return rollout(records=records + [StepRecord((2, 4), (0.5, 0.5), 0.0, 0.0)] * 2)


def test_values_come_from_branches_and_the_control_variate_learns():
    mix = mixer("--algo.advantage.estimator", "vine")
    first, second = mix(branched()), mix(branched())
    assert torch.isnan(first.values[0][0]) and first.values[0][1:].tolist() == [0.5]
    assert first.values[2] is None
    assert second.values[0][1:].tolist() == pytest.approx([0.5 + 2 * 0.125])
    assert first.columns["vine/k"].tolist() == [2.0, 2.0, 0.0, 0.0]
    assert first.columns["vine/branch_tokens"].tolist() == [9.0, 9.0, 0.0, 0.0]


def test_the_prm_stands_in_for_branches():
    mixed = prm_mixer("--algo.advantage.estimator", "vine", "--vine.values", "prm")(rollout())
    assert mixed.values[0][1:].tolist() == [0.75]


def test_rising_rewards_with_falling_accuracy_are_reported(caplog):
    mix = prm_mixer("--process_reward.shaping", "sum", "--watch.window", "8", "--watch.alpha", "0.01")
    for n in range(8):
        correct = torch.arange(4) < 4 - n // 2
        records = [StepRecord((1,) * 1, (0.1 * n,), 0.0, 0.0)] * 4
        mixed = mix(rollout(correct=correct, records=records))
    assert mixed.columns["process/hacking"].tolist() == [1.0] * 4
    assert "--watch.window" in caplog.text


def test_a_restored_mixer_goes_on_exactly_where_it_was():
    flags = (
        *("--process_reward.warmup_steps", "5", "--length_penalty.kind", "lagrangian"),
        *("--length_penalty.target", "3", "--watch.window", "5", "--algo.advantage.estimator", "vine"),
    )
    whole, killed, resumed = prm_mixer(*flags), prm_mixer(*flags), prm_mixer(*flags)
    for _ in range(3):
        whole(branched())
        killed(branched())
    # Checkpoints hold plain data.
    resumed.load_state_dict(json.loads(json.dumps(killed.state_dict())))
    for _ in range(3):
        expected, got = whole(branched()), resumed(branched())
        assert rewards(got) == rewards(expected)
        assert got.penalties.tolist() == expected.penalties.tolist() != [0.0] * 4
        assert got.values[0][1:].tolist() == expected.values[0][1:].tolist()
    assert resumed.state_dict() == whole.state_dict()


STATEFUL = [name for name, kind in LENGTH_PENALTIES.items() if PenaltyNeed.STATE in kind.needs]


@pytest.mark.parametrize("kind", STATEFUL)
def test_what_a_length_penalty_has_seen_is_in_the_checkpoint(kind):
    def drawn(number: int) -> RolloutColumns:
        """24 questions with 4 responses each, other ones in every rollout."""
        chance = torch.Generator().manual_seed(number)
        return rollout(
            outcomes=torch.zeros(96),
            correct=torch.rand(96, generator=chance) < torch.rand(24, generator=chance).repeat_interleave(4),
            lengths=torch.randint(1, 300 - 30 * number, (96,), generator=chance).float(),
            truncated=torch.zeros(96, dtype=torch.bool),
            prompts=[f"question {place // 4 % 20}" for place in range(96)],
            token_ids=[list(range(7))] * 96,
            records=[],
            group_size=4,
        )

    def said(mix, number):
        mixed = mix(drawn(number))
        return mixed.penalties.tolist(), mixed.kept.tolist()

    flags = ("--length_penalty.kind", kind, "--rollout.n_samples_per_prompt", "4", "--rollout.max_new_tokens", "300")
    flags += ("--length_penalty.target", "60") if kind == "lagrangian" else ()
    whole, killed, resumed, fresh = (mixer(*flags) for _ in range(4))
    for number in range(4):
        assert said(whole, number) == said(killed, number)
    resumed.load_state_dict(json.loads(json.dumps(killed.state_dict())))
    rest = [said(whole, number) for number in (4, 5)]
    assert [said(resumed, number) for number in (4, 5)] == rest
    assert [said(fresh, number) for number in (4, 5)] != rest, "without it another run goes on"
