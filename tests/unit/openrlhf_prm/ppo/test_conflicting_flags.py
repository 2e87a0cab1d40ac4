"""Options that cancel each other are refused before anything starts, and what fits together is not."""

import pytest
from host_flags import parse

from openrlhf_prm.length_penalties.alp import ALP
from openrlhf_prm.length_penalties.cosine import Cosine
from openrlhf_prm.length_penalties.laser import Laser, LaserDE
from openrlhf_prm.length_penalties.lcpo import LCPOExact
from openrlhf_prm.length_penalties.overlong import Overlong
from openrlhf_prm.length_penalties.truncation import Truncation, TruncationDifficulty
from openrlhf_prm.ppo.flag_checks import check_args
from openrlhf_prm.ppo.plugin_options import read_options

PRM = ("--prm.url", "http://x")
VINE = (
    *("--algo.advantage.estimator", "vine", "--vllm.enable_prefix_caching"),
    *("--reward.remote_url", "http://x"),
)
FORKED = [
    *("--algo.advantage.estimator", "forked_tree", "--algo.advantage.branching", "2x2"),
    "--vllm.enable_prefix_caching",
]
FILTERED = ("--algo.dynamic_filtering_enable",)


def shaping(name, *flags):
    return [*PRM, "--process_reward.shaping", name, *flags]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (shaping("gate", *FILTERED), "gate acts only on groups that are all right or all wrong, which --algo.dynamic"),
        (
            shaping("gate", "--process_reward.open_to", "wrong", *FILTERED),
            "gate acts only on groups that are all wrong",
        ),
        (
            shaping("filter", "--process_reward.keep", "0.9"),
            "--process_reward.keep 0.9 drops nothing of --rollout.n_sam",
        ),
        (shaping("filter", "--rollout.n_samples_per_prompt", "1"), "--process_reward.keep 0.5 drops nothing"),
        (shaping("filter", "--process_reward.coef", "2"), "--process_reward.coef has no effect: filter hands on no"),
        (shaping("filter", "--process_reward.normalise"), "--process_reward.normalise has no effect: filter"),
        (
            shaping("sum", "--process_reward.coef", "0", "--process_reward.warmup_steps", "3"),
            "warmup_steps has no effect",
        ),
        (
            shaping("sum", "--process_reward.normalise", "--algo.advantage.estimator", "group_norm"),
            "--process_reward.normalise: group_norm divides process rewards",
        ),
        (
            shaping(
                "sum",
                "--algo.advantage.estimator",
                "prime",
                "--algo.advantage.return_norm",
                "--process_reward.coef",
                "2",
            ),
            "--process_reward.coef: --algo.advantage.return_norm takes",
        ),
        (["--process_reward.outcome_coef", "0"], "--process_reward.outcome_coef 0 leaves nothing"),
        (["--process_reward.outcome_coef", "0", "--algo.advantage.estimator", "tree"], "outcome_coef 0 leaves nothing"),
        (shaping("filter", "--process_reward.outcome_coef", "0"), "outcome_coef 0 leaves nothing"),
        (
            [
                "--length_penalty.kind",
                "overlong",
                "--length_penalty.max_tokens",
                "300",
                "--rollout.max_new_tokens",
                "200",
            ],
            "--length_penalty.max_tokens 300 is more than the 200 tokens",
        ),
        (
            [
                "--length_penalty.kind",
                "cosine",
                "--length_penalty.max_tokens",
                "300",
                "--rollout.max_new_tokens",
                "200",
            ],
            "--length_penalty.max_tokens 300 is more than the 200 tokens",
        ),
        (
            [
                "--length_penalty.kind",
                "lcpo_max",
                "--length_penalty.target_max",
                "300",
                "--rollout.max_new_tokens",
                "200",
            ],
            "--length_penalty.target_max 300 is more than the 200 tokens",
        ),
        (
            ["--length_penalty.kind", "lagrangian", "--rollout.max_new_tokens", "512"],
            "--length_penalty.target 512 is not",
        ),
        (
            ["--length_penalty.kind", "o1_pruner", "--rollout.n_samples_per_prompt", "1"],
            "o1_pruner needs --rollout.n_sam",
        ),
        (
            ["--length_penalty.kind", "laser", "--length_penalty.target", "200", "--rollout.max_new_tokens", "200"],
            "--length_penalty.target 200 is not below the 200 tokens",
        ),
        (
            ["--length_penalty.kind", "laser_d", "--rollout.n_samples_per_prompt", "1"],
            "--length_penalty.kind laser_d needs --rollout.n_sam",
        ),
        (
            ["--length_penalty.kind", "laser_de", "--length_penalty.shortest", "9", "--length_penalty.max_tokens", "9"],
            "--length_penalty.shortest 9 is not below",
        ),
        (
            ["--length_penalty.kind", "truncation", "--rollout.max_new_tokens", "9"]
            + ["--length_penalty.max_tokens", "9"],
            "--length_penalty.max_tokens 9 is not below the 9 tokens",
        ),
        (
            ["--length_penalty.kind", "gfpo", "--length_penalty.keep", "1"],
            "--length_penalty.keep 1 drops nothing of --rollout.n_samples_per_prompt",
        ),
        (
            ["--length_penalty.kind", "truncation_difficulty", "--rollout.max_new_tokens", "9"]
            + ["--length_penalty.easy_max_tokens", "9"],
            "--length_penalty.easy_max_tokens 9 is not below",
        ),
        (
            ["--length_penalty.kind", "gfpo_difficulty", "--rollout.n_samples_per_prompt", "2"],
            "--length_penalty.kind gfpo_difficulty keeps 1 of --rollout.n_samples_per_prompt 2",
        ),
        (["--length_penalty.kind", "gfpo", "--length_penalty.coef", "2"], "--length_penalty.coef has no effect: gfpo"),
        (shaping("filter", "--length_penalty.kind", "gfpo"), "gfpo and --process_reward.shaping filter both choose"),
        (
            ["--length_penalty.kind", "gfpo", "--process_reward.outcome_coef", "0"],
            "outcome_coef 0 leaves nothing to learn from",
        ),
        (
            ["--process_reward.truncation_penalty", "0.5", "--reward.stop_properly_penalty_coef", "0.5"],
            "--process_reward.truncation_penalty: --reward.stop_properly_penalty_coef sets or scales",
        ),
        (
            [*shaping("sum", "--algo.advantage.estimator", "step_group", "--process_reward.truncation_penalty", "0.5")]
            + ["--reward.clip_range", "0", "1"],
            "--process_reward.truncation_penalty: --reward.clip_range 0 1 cuts off",
        ),
        ([*VINE, "--vine.half_width", "0.1"], "--vine.half_width 0.1 stops nowhere before --vine.k 9"),
        ([*VINE, "--vine.half_width", "0.3", "--vine.k_min", "9"], "--vine.half_width 0.3 stops nowhere"),
        ([*VINE, "--vine.half_width", "0.6"], "--vine.half_width 0.6 always stops at --vine.k_min 3"),
        (FORKED[:-1], "--algo.advantage.estimator forked_tree needs --vllm.enable_prefix_caching"),
        ([*FORKED, "--algo.advantage.branching", "4x2"], "branching 4x2 makes 8 responses, which must be .* 4"),
        (
            [*FORKED, "--train.agent_func_path", "agent.py"],
            "forked_tree branches single-turn responses: leave out --train.agent",
        ),
        ([*FORKED, "--length_penalty.kind", "gfpo"], "forked_tree needs whole groups: leave out --length_penalty.kind"),
        (["--algo.advantage.estimator", "spro", "--algo.kl.init_coef", "0"], "spro needs a reference: --algo.kl.init"),
        (["--algo.advantage.estimator", "spro", "--algo.kl.estimator", "k3"], "spro needs log-ratios: --algo.kl.est"),
        (shaping("sum", "--algo.advantage.estimator", "spro"), "spro reads no process rewards"),
        (["--algo.advantage.estimator", "papo"], "papo needs --prm"),
        (
            shaping("sum", "--algo.advantage.estimator", "papo", "--process_reward.warmup_steps", "2"),
            "--process_reward.warmup_steps: papo, which has --algo.advantage.process_weight, takes weights out again",
        ),
        (["--algo.advantage.length_alpha", "0.05"], "length_alpha needs --algo.advantage.estimator gae"),
        (
            ["--algo.advantage.estimator", "gae", "--algo.advantage.length_alpha", "0.05"]
            + ["--algo.advantage.lambd", "0.9"],
            "--algo.advantage.length_alpha gives lambda",
        ),
        (
            ["--diversity.coef", "1", "--rollout.n_samples_per_prompt", "1"],
            "--diversity.coef needs --rollout.n_samples",
        ),
        (
            ["--algo.advantage.estimator", "tree", "--rollout.temperature", "0"],
            "--rollout.temperature 0 makes all the sam",
        ),
    ],
)
def test_pairs_that_cancel_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        check_args(parse(*flags))


@pytest.mark.parametrize(
    "flags",
    [
        shaping("gate"),
        shaping("gate", *FILTERED, "--algo.dynamic_filtering_range", "-1", "1"),
        shaping("filter", *FILTERED),
        shaping("filter", "--algo.advantage.estimator", "tree", "--process_reward.coef", "0"),
        shaping("sum", "--process_reward.normalise"),
        shaping(
            "verified_potential", "--process_reward.outcome_coef", "0", "--algo.advantage.estimator", "step_returns"
        ),
        ["--process_reward.outcome_coef", "0", "--length_penalty.kind", "kimi"],
        [
            "--length_penalty.kind",
            "lagrangian",
            "--rollout.max_new_tokens",
            "512",
            "--length_penalty.min_multiplier",
            "-1",
        ],
        [*VINE, "--vine.half_width", "0.285"],
        FORKED,
        ["--algo.advantage.estimator", "spro", "--algo.kl.estimator", "k3", "--algo.kl.use_loss"],
        ["--algo.advantage.estimator", "gae", "--algo.advantage.length_alpha", "0.05"],
    ],
)
def test_what_fits_together_is_let_through(flags):
    check_args(parse(*flags))


def test_scales_of_lengths_follow_the_generation_limit_where_they_are_not_given():
    def built(kind, *flags):
        return read_options(parse("--length_penalty.kind", kind, "--rollout.max_new_tokens", "200", *flags)).penalty

    assert built("overlong") == Overlong(max_tokens=200, buffer=50)
    assert built("overlong", "--length_penalty.max_tokens", "100") == Overlong(max_tokens=100, buffer=50)
    assert built("cosine") == Cosine(max_tokens=200)
    assert built("alp") == ALP(max_tokens=200) and built("truncation") == Truncation(max_tokens=100)
    assert built("truncation_difficulty") == TruncationDifficulty(max_tokens=200, easy_max_tokens=100)
    assert built("laser") == Laser(target=100)
    assert built("laser_de") == LaserDE(shortest=50, interval=12, max_tokens=200)
    assert built("lcpo_exact") == LCPOExact(target_max=200)
    assert read_options(parse("--length_penalty.kind", "cosine", "--data.max_len", "700")).penalty.max_tokens == 700
