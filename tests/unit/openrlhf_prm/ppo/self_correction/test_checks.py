"""What self-correction refuses, each in one line before anything starts, and what it takes."""

import pytest
from host_flags import parse

from openrlhf_prm.ppo.flag_checks import check_args
from openrlhf_prm.ppo.plugin_options import read_options

STAGE_2 = ("--self_correction.stage", "2", "--reward.remote_url", "http://x", "--rollout.max_new_tokens", "500")
STAGE_1 = ("--self_correction.stage", "1", *STAGE_2[2:])
PRM = ("--prm.url", "http://x")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((*STAGE_1, "--self_correction.attempts", "1"), "--self_correction.attempts must be above 1"),
        ((*STAGE_2, "--algo.advantage.estimator", "group_norm"), "rloo, not group_norm"),
        ((*STAGE_2, "--algo.advantage.estimator", "tree"), "rloo, not tree"),
        ((*STAGE_2, "--train.agent_func_path", "agent.py"), "leave out --train.agent_func_path"),
        ((*STAGE_2, "--data.max_images_per_prompt", "1"), "leave out --data.max_images_per_prompt"),
        (("--self_correction.stage", "2"), "--self_correction.stage needs --reward.remote_url"),
        ((*STAGE_2, "--algo.advantage.gamma", "0.9"), "--algo.advantage.gamma 1"),
        ((*STAGE_2, "--rollout.n_samples_per_prompt", "1"), "--rollout.n_samples_per_prompt above 1"),
        ((*STAGE_2, "--algo.dynamic_filtering_enable"), "--algo.dynamic_filtering_enable looks at last attempts"),
        ((*STAGE_2, "--algo.kl.use_loss"), "leave out --algo.kl.use_loss"),
        ((*STAGE_2, "--algo.kl.target", "0.1"), "leave out --algo.kl.target"),
        ((*STAGE_1, "--algo.kl.init_coef", "0"), "--self_correction.beta2 0.1 needs --algo.kl.init_coef above 0"),
        (
            (*STAGE_2, "--algo.kl.init_coef", "0", "--self_correction.beta1", "0.1"),
            "--self_correction.beta1 0.1 needs --algo.kl.init_coef above 0",
        ),
        ((*STAGE_2, *PRM, "--process_reward.shaping", "filter"), "filter leaves responses out"),
        ((*STAGE_2, "--length_penalty.kind", "gfpo"), "gfpo leaves responses out"),
        ((*STAGE_2, "--process_reward.shaping", "implicit"), "implicit trains its PRM on whole episodes"),
        ((*STAGE_2, "--reward.overlong_buffer_len", "9"), "--reward.overlong_buffer_len charges episodes"),
        ((*STAGE_2, "--reward.stop_properly_penalty_coef", "0"), "--reward.stop_properly_penalty_coef charges"),
        ((*STAGE_2[:4],), "--self_correction.attempt_tokens or --rollout.max_new_tokens must limit"),
        ((*STAGE_2, "--self_correction.attempts", "5"), "--data.max_len 2048 has no room for 5 attempts of 500"),
        ((*STAGE_2, "--self_correction.attempt_tokens", "1024"), "no room for 2 attempts of 1024"),
        (("--self_correction.alpha", "3"), "--self_correction.alpha needs --self_correction.stage"),
        ((*STAGE_1, "--self_correction.alpha", "3"), "--self_correction.alpha needs --self_correction.stage 2, or"),
        ((*STAGE_2, "--self_correction.beta2", "3"), "--self_correction.beta2 needs --self_correction.stage 1"),
        ((*STAGE_2, "--self_correction.stage1_steps", "3"), "stage1_steps needs --self_correction.stage 1"),
        (
            (*STAGE_2, "--self_correction.attempts", "1", "--self_correction.within_chain"),
            "--self_correction.within_chain needs --self_correction.attempts above 1",
        ),
        ((*STAGE_2, "--self_correction.offline_share", "0.5"), "offline_share needs --self_correction.offline_file"),
        ((*STAGE_2, "--self_correction.offline_file", "a"), "offline_file needs --self_correction.offline_share"),
        (
            (*STAGE_2, "--self_correction.offline_file", "/no/file", "--self_correction.offline_share", "0.5"),
            "--self_correction.offline_file: there is no file /no/file",
        ),
        (("--self_correction.stage", "3"), "--self_correction.stage must lie in 1..2"),
        ((*STAGE_2, "--data.input_template", "Q"), "--data.input_template has no {}"),
    ],
)
def test_what_cannot_be_combined_is_one_line(flags, message):
    with pytest.raises(ValueError) as error:
        check_args(parse(*flags))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flags",
    [
        STAGE_2,
        (*STAGE_2, "--self_correction.attempts", "1", "--self_correction.alpha", "0"),
        (
            *STAGE_1,
            "--self_correction.stage1_steps",
            "9",
            "--self_correction.alpha",
            "5",
            "--self_correction.beta2",
            "1",
        ),
        (*STAGE_2, "--algo.kl.init_coef", "0"),
        (*STAGE_1, "--algo.kl.init_coef", "0", "--self_correction.beta2", "0"),
        (*STAGE_2, *PRM, "--process_reward.shaping", "min_form", "--process_reward.baseline_of", "returns"),
        (*STAGE_2, "--length_penalty.kind", "overlong", "--process_reward.truncation_penalty", "0.5"),
        (*STAGE_2, "--self_correction.within_chain", "--self_correction.instruction", "Hm."),
    ],
)
def test_what_fits(flags):
    args = parse(*flags)
    check_args(args)
    assert read_options(args).acts


def test_scales_of_length_penalties_are_those_of_an_attempt():
    args = parse(*STAGE_2, "--self_correction.attempt_tokens", "300", "--length_penalty.kind", "cosine")
    assert read_options(args).penalty.max_tokens == 300
