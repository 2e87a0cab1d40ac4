"""What reaches the host's update: its real experience maker under ours, on responses a reader can follow. No engine."""

import functools

import pytest
import torch

from benchmarks.host_arguments import arguments
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES
from openrlhf_prm.ppo.rollout.records import StepRecord

PRM = ("--prm.model_name_or_path", "unused")
NAN = float("nan")
arguments = functools.cache(arguments)


class Words:
    pad_token_id = 0

    def batch_decode(self, rows, **_):
        return [" ".join(map(str, row)) for row in rows]


def sample(reward: float, length: int, cut: bool, spacing: int = 1):
    """A response of `length` tokens behind a prompt of three, its last place included; of every `spacing` places the
    first is the policy's, the others its environment's.
    """
    from openrlhf.trainer.ppo_utils.experience import Experience

    actions = torch.zeros(1, 2 + length, dtype=torch.long)
    actions[0, 2::spacing] = 1
    rewards = torch.tensor([reward])
    return Experience(
        sequences=torch.arange(1, 4 + length)[None],
        attention_mask=torch.ones(1, 3 + length, dtype=torch.long),
        action_mask=actions,
        prompts=["p"],
        labels=["l"],
        images=[None],
        mm_train_inputs=[None],
        rewards=rewards,
        scores=rewards.clone(),
        response_length=torch.tensor([length]),
        truncated=torch.tensor([cut]),
        total_length=torch.tensor([3.0 + length]),
        info={"reward": rewards.clone(), "kl": torch.zeros(1)},
    )


def experiences(estimator, rewards, lengths, *flags, records=(), cut=None, group_size=None, spacing=1):
    """The batches that the host would train on."""
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.utils import get_strategy

    from openrlhf_prm.ppo.experience import ProcessExperienceMaker
    from openrlhf_prm.ppo.plugin_options import read_options

    args = arguments(
        estimator,
        *("--rollout.n_samples_per_prompt", str(group_size or len(rewards)), "--rollout.micro_batch_size", "3"),
        *("--actor.num_gpus_per_node", "1", "--algo.kl.init_coef", "0", *flags),
    )
    maker = ProcessExperienceMaker(
        *(None,) * 4, FixedKLController(0.0), get_strategy(args), Words(), options=read_options(args)
    )
    samples = [sample(*row, spacing) for row in zip(rewards, lengths, cut or [False] * len(rewards), strict=True)]
    maker._records = list(records)
    batches = maker.split_rollout_samples(samples)
    for batch in batches:
        batch.kl, batch.values = torch.zeros(batch.action_mask.shape), torch.full(batch.action_mask.shape, 0.25)
    return maker.compute_advantages_and_returns(batches)


def rows(batches, field="advantages"):
    """Response by response: the trained tokens' advantages."""
    by_place = {
        index: getattr(batch, field)[row][batch.action_mask[row].bool()].tolist()
        for batch in batches
        for row, index in enumerate(batch.index)
    }
    return [by_place[index] for index in range(len(by_place))]


FILTER = (*PRM, "--process_reward.shaping", "filter")
RIGHT = [1.0] * 5 + [0.0] * 3
MEANS = [0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.2, 0.9]  # keeps 0, 1, 5, 6: two right ones and two wrong


def filtered(estimator, lengths, *flags, steps=2, **more):
    """Responses of `lengths` tokens of which the second half of each side is left out."""
    records = []
    for mean, length in zip(MEANS, lengths, strict=True):
        count = steps if mean in (0.1, 0.2, 0.8) or length == 4 else 2 * steps
        ends = tuple(length * (k + 1) // count for k in range(count))
        records.append(StepRecord(ends, (mean,) * count, 0.0, 0.0))
    return experiences(estimator, RIGHT, lengths, *FILTER, *flags, records=records, **more)


@pytest.mark.parametrize(
    ("estimator", "advantage"),
    [
        *(("group_norm", 0.8660), ("step_group", 0.8660), ("rloo", 2 / 3), ("reinforce_baseline", 1.0)),
        *(("reinforce", 1.0), ("dr_grpo", 0.5), ("flash_reinforce", 0.5), ("gae", 1.0), ("step_returns", 2 / 3)),
    ],
)
def test_what_is_left_out_is_as_if_it_had_never_been_sampled(estimator, advantage):
    batches = filtered(estimator, [4] * 8)
    got = rows(batches)
    assert [len(row) for row in got] == [4, 4, 0, 0, 0, 4, 4, 0]
    assert [got[0][0], got[1][0], got[5][0], got[6][0]] == pytest.approx([advantage] * 2 + [-advantage] * 2, abs=1e-4)
    logged = torch.cat([batch.info["reward"] for batch in batches])
    assert logged.tolist() == RIGHT
    # Longer, of more steps, cut and charged for it: what is left out moves nothing.
    others = filtered(
        estimator,
        [4, 4, 40, 40, 40, 4, 4, 40],
        *("--reward.stop_properly_penalty_coef", "-5"),
        cut=[place in (2, 3, 4, 7) for place in range(8)],
    )
    assert rows(others) == got


@pytest.mark.parametrize(("estimator", "advantage"), [("group_norm", 0.8660), ("rloo", 2 / 3), ("tree", 2 / 3)])
def test_gfpo_trains_on_short_responses_as_if_no_others_had_been_sampled(estimator, advantage):
    flags = ("--length_penalty.kind", "gfpo")
    records = [StepRecord((length,), None, 0.0, 0.0) for length in (2, 3, 9, 9, 9, 4, 5, 9)]
    batches = experiences(estimator, RIGHT, [2, 3, 9, 9, 9, 4, 5, 9], *flags, records=records)
    got = rows(batches)
    assert [len(row) for row in got] == [2, 3, 0, 0, 0, 4, 5, 0]
    assert [got[0][0], got[1][0], got[5][0], got[6][0]] == pytest.approx([advantage] * 2 + [-advantage] * 2, abs=1e-4)
    assert torch.cat([batch.info["process/kept"] for batch in batches]).tolist() == [1.0, 1, 0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("token_level", [True, False])
def test_what_is_left_out_counts_neither_as_tokens_nor_as_sequences_in_the_loss(token_level):
    from openrlhf.models.loss import PolicyLoss
    from openrlhf.utils.loss_utils import get_loss_batch_info

    batches = filtered("rloo", [4, 2, 9, 9, 9, 3, 5, 9], "--algo.advantage.negative_weight", "0.5")
    kept = {0, 1, 5, 6}

    def loss(chosen):
        masks = torch.zeros(len(chosen), 20)
        advantages = torch.zeros(len(chosen), 20)
        for place, (batch, row) in enumerate(chosen):
            width = batch.action_mask.shape[1]
            masks[place, :width], advantages[place, :width] = batch.action_mask[row], batch.advantages[row]
        sizes = get_loss_batch_info(None, masks)
        log_probs = torch.zeros_like(masks)
        return PolicyLoss(token_level_loss=token_level)(log_probs, log_probs, advantages, masks, **sizes)[0].item()

    everything = [(batch, row) for batch in batches for row in range(len(batch.index))]
    alone = [(batch, row) for batch, row in everything if batch.index[row] in kept]
    assert loss(everything) == pytest.approx(loss(alone)) and abs(loss(alone)) > 1e-3


@pytest.mark.parametrize("estimator", sorted(set(HOST_BASELINES) - {"gae"}))
@pytest.mark.parametrize(
    ("flags", "reward"),
    [
        (("--process_reward.truncation_penalty", "0.2"), -0.2),
        (("--process_reward.format_pattern", "boxed", "--process_reward.format_penalty", "0.2"), -0.2),
        (("--reward.stop_properly_penalty_coef", "-0.7", "--process_reward.format_pattern", "boxed"), -0.7),
    ],
)
def test_a_constant_that_floats_cannot_hold_is_no_advantage(estimator, flags, reward):
    batches = experiences(estimator, [0.0] * 8, [4] * 8, *flags, cut=[True] * 8)
    assert rows(batches) == [[0.0] * 4] * 8
    assert batches[0].info["reward"].tolist() == pytest.approx([reward] * 3)


@pytest.mark.parametrize("estimator", ["group_norm", "rloo", "reinforce_baseline"])
def test_equally_long_right_responses_are_not_told_apart(estimator):
    batches = experiences(estimator, [1.0] * 8, [7] * 8, "--length_penalty.kind", "grpo_lambda")
    assert rows(batches) == [[0.0] * 7] * 8


@pytest.mark.parametrize("estimator", sorted(set(ADVANTAGE_ESTIMATORS) - {"spo", "vine", "forked_tree"}))
def test_rounding_is_no_advantage_of_our_estimators_either(estimator):
    flags = ("--process_reward.truncation_penalty", "0.2", *(() if estimator in ("tree", "spro") else PRM))
    records = [StepRecord((4,), (0.1 * 3,), 0.0, 0.0)] * 7
    batches = experiences(estimator, [0.0] * 7, [4] * 7, *flags, records=records, cut=[True] * 7)
    assert rows(batches) == [[0.0] * 4] * 7


ESTIMATORS = sorted({*HOST_BASELINES, *ADVANTAGE_ESTIMATORS} - {"spo", "vine", "forked_tree"})


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_response_without_tokens_trains_with_its_group(estimator):
    records = [
        StepRecord((2, 4), (0.5, 0.6), 0.0, 0.0),
        StepRecord((), (), 0.0, 0.0),
        StepRecord((3,), (0.4,), 0.0, 0.0),
    ]
    flags = () if estimator in ("tree", "spro") else PRM
    batches = experiences(estimator, [1.0, 0.0, 0.25], [4, 0, 3], *flags, records=records)
    got = rows(batches)
    assert [len(row) for row in got] == [4, 0, 3]
    assert all(torch.isfinite(batch.advantages).all() for batch in batches)
    assert all(torch.isfinite(column).all() for batch in batches for column in batch.info.values())
    assert got[0][0] > 0 > got[2][0]


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != "tree"])
@pytest.mark.parametrize("shaping", ["sum", "min_form", "delta", "potential", "verified_potential", "clip", "progress"])
def test_a_response_that_shows_nothing_does_not_win_its_group(estimator, shaping):
    """All are wrong, and the PRM likes none of what was written."""
    scored = [(0.2, 0.3), (0.4, 0.1), (0.3, 0.2)]
    records = [StepRecord((2, 4), scores, 0.0, 0.0, text_ends=(2, 3)) for scores in scored]
    records.append(StepRecord((1,), (NAN,), 0.0, 0.0, text_ends=(1,)))
    batches = experiences(
        estimator, [0.0] * 4, [4, 4, 4, 1], *PRM, "--process_reward.shaping", shaping, records=records
    )
    got = rows(batches)
    assert got[3][0] <= max(row[0] for row in got[:3]) + 1e-6
    info = {name: torch.cat([batch.info[name] for batch in batches]) for name in batches[0].info}
    assert info["process/unscored"].tolist() == [0, 0, 0, 1] and info["process/step_score"].mean() == pytest.approx(
        0.25
    )
    assert info["process/one_step"].tolist() == [0, 0, 0, 1]
    assert all(torch.isfinite(column).all() for column in info.values())


def test_separators_have_no_advantage_where_the_paper_says_so_or_the_flag():
    records = [
        StepRecord((2, 5), (0.2, 0.9), 0.0, 0.0, text_ends=(1, 4)),
        StepRecord((2,), (0.4,), 0.0, 0.0, text_ends=(2,)),
    ]

    def zeros(estimator, *flags):
        batches = experiences(estimator, [1.0, 0.0], [5, 2], *PRM, *flags, records=records)
        return [[value == 0 for value in row] for row in rows(batches)]

    spared, all_count = [[False, True, False, False, True], [False, False]], [[False] * 5, [False] * 2]
    assert zeros("min_form_rloo") == spared and zeros("step_returns") == all_count
    assert zeros("min_form_rloo", "--algo.advantage.separators", "credit") == all_count
    assert zeros("rloo", "--algo.advantage.separators", "none") == spared


def test_whitening_does_not_count_tokens_without_credit():
    records = [StepRecord((4,), (0.9,), 0.0, 0.0, text_ends=(1,)), StepRecord((2,), (0.4,), 0.0, 0.0, text_ends=(2,))]
    got = rows(experiences("min_form_rloo", [1.0, 0.0], [4, 2], *PRM, records=records))
    counted = [got[0][0], *got[1]]
    assert sum(counted) == pytest.approx(0.0, abs=1e-5) and torch.tensor(counted).std().item() == pytest.approx(1.0)


def test_only_tokens_with_a_choice_are_in_the_loss_of_spo():
    records = [
        StepRecord((4,), None, 0.0, 0.0, branches=(), probabilities=(0.5, 0.95, 0.3, 0.99)),
        StepRecord((3,), None, 0.0, 0.0, branches=(), probabilities=(0.95, 0.95, 0.1)),
    ]
    batches = experiences("spo", [1.0, 0.0], [4, 3], "--algo.advantage.no_std_norm", records=records)
    assert rows(batches) == [[1.0, 1.0], [-1.0]]
    (batch,) = batches
    assert batch.action_mask[0].tolist() == [0, 0, 1, 0, 1, 0] and batch.action_mask[1].tolist()[:5] == [0, 0, 0, 0, 1]


def test_vapo_follows_the_length_and_its_critic_the_whole_return():
    batches = experiences("gae", [1.0, 0.0], [40, 2], "--algo.advantage.length_alpha", "0.05")
    assert rows(batches, "returns") == [[1.0] * 40, [0.0] * 2]
    # The critic says 0.25: what the last token changed is 0.75 and -0.25, weighed by lambda 0.5 and 0.
    raw = torch.tensor([0.75 * 0.5**k for k in range(39, -1, -1)] + [0.0, -0.25])
    got = torch.tensor([value for row in rows(batches) for value in row])  # whitened
    assert torch.allclose((got - got.mean()) / got.std(), (raw - raw.mean()) / raw.std(), atol=1e-4)


def test_log_ratios_are_the_policys_to_its_reference():
    from openrlhf_prm.ppo.response_tokens import log_ratios

    one = sample(1.0, 2, False)
    one.index, one.kl = [0], torch.tensor([[9.0, 9.0, 0.5, -0.25]])
    assert {place: row.tolist() for place, row in log_ratios([one]).items()} == {0: [0.5, -0.25]}
    one.action_log_probs = torch.tensor([[0.0, 0.0, -1.0, -2.0]])
    one.base_action_log_probs = torch.tensor([[0.0, 0.0, -1.5, -1.0]])
    assert log_ratios([one])[0].tolist() == [0.5, -1.0]


def test_a_tree_that_forks_is_credited_by_its_forks():
    records = [StepRecord((4,), None, 0.0, 0.0, fork_ends=(2,))] * 4
    flags = ("--algo.advantage.branching", "2x2")
    batches = experiences("forked_tree", [1.0, 0.0, 0.0, 0.0], [4] * 4, *flags, records=records)
    assert rows(batches) == [[0.5, 0.5, 1, 1], [0.5, 0.5, -1, -1], [-0.5, -0.5, 0, 0], [-0.5, -0.5, 0, 0]]


def test_words_of_an_environment_belong_to_the_state():
    from openrlhf_prm.ppo.response_tokens import in_context

    tokens = in_context(torch.tensor([1, 2, 3, 4, 9, 9, 5, 6]), torch.tensor([0, 1, 1, 0, 0, 1, 1]))
    assert tokens == [3, 4, (9, 9, 5), 6]
    assert in_context(torch.tensor([1, 2]), torch.tensor([0])) == []


def test_runs_of_action_tokens_are_turns():
    from openrlhf_prm.ppo.response_tokens import turns_of

    assert turns_of(torch.tensor([0, 1, 1, 0, 1])) == 2 and turns_of(torch.tensor([1, 0])) == 1
    assert turns_of(torch.tensor([0, 0])) == 0


TURNS = ("--train.agent_func_path", "agent.py", "--credit.turn_rewards", "--credit.unit", "turn")


def of_turns(count: int, paid: int | None = None) -> StepRecord:
    """Turns of one token; one of them was paid 1."""
    ends = tuple(range(1, count + 1))
    rewards = tuple(float(end - 1 == paid) for end in ends)
    return StepRecord(ends, None, 0.0, 0.0, turn_ends=ends, turn_rewards=rewards)


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name not in ("tree", "spro")])
def test_fifty_turns_one_and_none(estimator):
    records = [of_turns(50, paid=24), of_turns(1), StepRecord((), None, 0.0, 0.0)]
    batches = experiences(estimator, [1.0, 0.0, 0.0], [148, 1, 0], *TURNS, records=records, spacing=3)
    got = rows(batches)
    assert [len(row) for row in got] == [50, 1, 0]
    assert all(torch.isfinite(batch.advantages).all() for batch in batches)
    assert got[0][24] > max(got[0][25:]) - 1e-6, "what was paid at turn 25 is credited there and before"


def test_a_turn_is_credited_with_its_own_reward_among_fifty():
    flags = (
        *TURNS,
        "--algo.advantage.lambd",
        "0",
        "--algo.advantage.no_std_norm",
        "--algo.advantage.baseline",
        "others",
    )
    batches = experiences(
        "step_group", [1.0, 0.0], [148, 1], *flags, records=[of_turns(50, paid=24), of_turns(1)], spacing=3
    )
    assert rows(batches) == [[0.0] * 24 + [1.0] + [0.0] * 25, [0.0]]


def test_a_perfect_critic_is_told_so_whatever_an_environment_wrote():
    """20 of its tokens stand between two turns; the critic says 0.25 everywhere, and is right."""
    flags = (*TURNS, "--algo.advantage.lambd", "0.95")
    batches = experiences("gae", [0.25], [22], *flags, records=[of_turns(2)], spacing=21)
    assert rows(batches, "returns") == [pytest.approx([0.25, 0.25])]


@pytest.mark.parametrize(("spacing", "turn_ends"), [(3, (1, 2)), (1, (1, 2)), (3, ())])
def test_a_sum_over_two_turns_is_no_right_answer(spacing, turn_ends):
    """0.3 and 0.3, and where the environment wrote nothing between them as well."""
    records = [StepRecord((1, 2), None, 0.0, 0.0, turn_ends=turn_ends), StepRecord((1,), None, 0.0, 0.0)]
    batches = experiences("tree", [0.6, 0.6], [spacing + 1, 1], records=records, spacing=spacing)
    accuracy = {
        i: v for batch in batches for i, v in zip(batch.index, batch.info["process/accuracy"].tolist(), strict=True)
    }
    assert accuracy == {0: 0.0, 1: 1.0}


LINES = {
    "as they are": "\n\n",
    "Windows": "\r\n\r\n",
    "blanks": "  \n\n",
    "tab and blank": "\t \n\n",
}


class Characters:
    def decode(self, ids, **_):
        return "".join(map(chr, ids))


WHITENED_OVER_ALL_TOKENS = ("gae", "reinforce", "reinforce_baseline")


@pytest.mark.parametrize(
    "estimator", [name for name in ESTIMATORS if name not in ("tree", "spro", *WHITENED_OVER_ALL_TOKENS)]
)
@pytest.mark.parametrize("splitter", ["auto", "blank_line", "newline"])
def test_line_ends_and_trailing_blanks_change_nothing(estimator, splitter):
    """Neither the texts that the PRM reads nor any step's advantage; tokens that separate have none of their own."""
    from openrlhf_prm.data.steps import split_steps

    def advantages(line_end):
        texts, records, lengths = [], [], []
        for response in (["Step 1: 2 + 2 = 4", "Step 2: 4 + 1 = 5", "Answer: 5"], ["Step 1: 2 + 2 = 5", "Answer: 5"]):
            steps = split_steps([ord(letter) for letter in line_end.join(response)], Characters(), splitter)
            steps = [step for step in steps if step.text.strip()]
            texts.append([step.text.rstrip() for step in steps])
            scores = [0.9, 0.3, 0.6] if len(response) == 3 else [0.5, 0.2]
            ends, text_ends = (tuple(getattr(step, name) for step in steps) for name in ("end", "text_end"))
            records.append(StepRecord(ends, tuple(scores), 0.0, 0.0, text_ends=text_ends))
            lengths.append(steps[-1].end)
        flags = [*PRM, "--algo.advantage.separators", "none"]
        if estimator == "min_form_rloo":  # PURE's own baseline is a price per token
            flags += ["--algo.advantage.baseline", "response"]
        got = rows(experiences(estimator, [1.0, 0.0], lengths, *flags, records=records))
        return texts, [[row[end - 1] for end in rec.text_ends] for row, rec in zip(got, records, strict=True)]

    expected = advantages("\n\n")
    for name, line_end in LINES.items():
        texts, found = advantages(line_end)
        assert texts == expected[0], name
        assert [pytest.approx(row, abs=1e-5) for row in found] == expected[1], name
