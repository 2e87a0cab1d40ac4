"""The plugin's flags: what a run builds of them, and bad input refused with the flag's name before anything starts."""

import json
from pathlib import Path

import pytest
from host_flags import parse

from openrlhf_prm.advantages.branch_values import VineOptions
from openrlhf_prm.advantages.spo import SPO
from openrlhf_prm.ppo.flag_checks import check_args
from openrlhf_prm.ppo.plugin_options import read_options
from openrlhf_prm.rewards.min_form import MinForm

POLICY = Path(__file__).parents[4] / "examples" / "quickstart" / "policy"
IMPLICIT = ("--process_reward.shaping", "implicit")
AGENT = ("--train.agent_func_path", "agent.py")
VINE = ("--algo.advantage.estimator", "vine")
BRANCHED = (*VINE, "--vllm.enable_prefix_caching", "--reward.remote_url", "http://x")


def test_nothing_asked_for_leaves_the_host_alone():
    assert not read_options(parse()).acts
    for flags in (
        ["--prm.url", "http://x"],
        ["--algo.advantage.estimator", "tree"],
        ["--length_penalty.kind", "kimi"],
        ["--diversity.coef", "0.1"],
        ["--process_reward.truncation_penalty", "1"],
        ["--process_reward.format_pattern", "boxed"],
        ["--algo.advantage.constant_length_norm"],
        ["--algo.advantage.negative_weight", "0.5"],
        [*IMPLICIT],
    ):
        assert read_options(parse(*flags)).acts, flags


def test_defaults_pass_and_estimators_are_widened(tmp_path):
    check_args(parse())
    check_args(parse("--algo.advantage.estimator", "tree"))
    reward = tmp_path / "reward.py"
    reward.write_text("")
    (tmp_path / "config.json").write_text('{"prm": {"family": "placeholder"}}')
    check_args(parse(*VINE, "--vllm.enable_prefix_caching", "--reward.remote_url", str(reward)))
    check_args(parse(*VINE, "--vine.values", "prm", "--prm.url", "http://x"))
    check_args(parse("--prm.model_name_or_path", str(tmp_path), "--algo.advantage.estimator", "step_group"))
    check_args(parse("--prm.url", "http://x", "--algo.advantage.estimator", "tree", "--process_reward.coef", "0"))
    check_args(parse(*IMPLICIT, "--algo.advantage.estimator", "prime", "--online_prm.reference", str(tmp_path)))


def test_a_checkpoint_without_its_online_prm_is_refused(tmp_path):
    flags = [*IMPLICIT, "--algo.advantage.estimator", "prime", "--ckpt.path", str(tmp_path)]
    check_args(parse(*flags, "--ckpt.load_enable"))
    (tmp_path / "_actor").mkdir()
    check_args(parse(*flags))
    with pytest.raises(ValueError, match="--ckpt.load_enable: the checkpoint in .* has no online PRM"):
        check_args(parse(*flags, "--ckpt.load_enable"))
    (tmp_path / "_online_prm").mkdir()
    check_args(parse(*flags, "--ckpt.load_enable"))


def test_options_reach_the_algorithm_and_open_ones_keep_its_default():
    prm = ("--prm.url", "http://x")
    assert read_options(parse(*prm, "--process_reward.temperature", "0.5")).shaping == MinForm(temperature=0.5)
    assert read_options(parse(*prm)).shaping == MinForm()
    spo = ("--algo.advantage.estimator", "spo", "--algo.advantage.cut_points", "2", "--vine.k", "3")
    options = read_options(parse(*spo))
    assert options.estimator == SPO(cut_points=2) and options.vine == VineOptions(k=3)
    options = read_options(parse(*spo, "--algo.advantage.no_mask", "--algo.advantage.no_std_norm"))
    assert options.estimator == SPO(cut_points=2, std_norm=False, mask=False)


def test_what_a_run_does_not_read_is_not_built():
    plain = read_options(parse())
    absent = ("prm", "workers", "online_prm", "process_reward", "shaping", "watch", "steps", "vine", "penalty")
    assert [getattr(plain, field) for field in (*absent, "estimator")] == [None] * 10
    server = read_options(parse("--prm.url", "http://x"))
    assert server.prm and server.shaping and server.watch and server.steps and not server.workers
    segments = read_options(parse("--algo.advantage.estimator", "spo"))
    assert segments.vine and segments.looks_at_steps and not segments.steps
    assert read_options(parse(*IMPLICIT)).online_prm


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prm.model_name_or_path", "/no/such/prm"], "--prm.model_name_or_path: there is no folder /no/such/prm"),
        (["--prm.model_name_or_path", "owner/prm", "--prm.url", "http://x"], "exclude each other"),
        (
            ["--prm.model_name_or_path", str(POLICY), "--prm.family", "nope"],
            "--prm.family: unknown PRM family 'nope'; choose one of .*placeholder",
        ),
        (["--prm.url", "localhost:8000"], "--prm.url must begin with http:// or https://"),
        (["--prm.model_name_or_path", "."], "--prm.model_name_or_path: no checkpoint"),
        (["--prm.gpus_per_engine", "-1"], "--prm.gpus_per_engine must be above 0"),
        (["--prm.gpus_per_engine", "1.5"], "--prm.gpus_per_engine .* got 1.5; .tensor_parallel_size 2 splits"),
        (["--prm.gpus_per_engine", "0.5", "--prm.tensor_parallel_size", "2"], "takes whole GPUs, leave it out"),
        (["--prm.gpus_per_engine", "0.5", "--prm.gpu_memory_utilization", "0.6"], "0.6 is more than the share"),
        (["--prm.url", "http://x", "--prm.api_key_env", "NO_SUCH_KEY"], "variable NO_SUCH_KEY is not set"),
        (["--prm.api_key_env", "HOME"], "--prm.api_key_env needs --prm.model_name_or_path or --prm.url"),
        (["--prm.gpu_memory_utilization", "5"], "--prm.gpu_memory_utilization must lie in"),
        (["--prm.max_model_len", "0"], "--prm.max_model_len must be at least 1"),
        (["--prm.url", "http://x", "--prm.kv_cache_mb", "8"], "--prm.kv_cache_mb needs --prm.model_name_or_path"),
        (["--prm.score_range", "signed"], "--prm.score_range needs --prm.model_name_or_path or --prm.url"),
        (["--process_reward.coef", "nan"], "--process_reward.coef must be a finite number"),
        (["--process_reward.coef", "2"], "--process_reward.coef needs --prm.model_name_or_path"),
        (["--process_reward.shaping", "delta"], "--process_reward.shaping needs --prm.model_name_or_path"),
        (["--process_reward.normalise"], "--process_reward.normalise needs"),
        (
            ["--process_reward.shaping", "min_form"],
            "--process_reward.shaping needs .*--process_reward.shaping implicit",
        ),
        (["--steps.splitter", "newline"], "--steps.splitter needs a PRM, or an estimator of the plugin"),
        (["--watch.alpha", "0.1"], "--watch.alpha needs --prm.model_name_or_path"),
        ([*BRANCHED, "--vine.k_min", "2"], "--vine.k_min needs --vine.half_width"),
        (
            ["--prm.url", "http://x", "--process_reward.shaping", "progress", "--process_reward.score_scale", "signed"],
            "--process_reward.score_scale needs a --process_reward.shaping that takes scores on either scale",
        ),
        (["--process_reward.truncation_penalty", "-1"], "--process_reward.truncation_penalty must be at least 0"),
        (["--process_reward.temperature", "1"], "is an option of min_form, which a run without a PRM does not read"),
        (["--prm.url", "http://x", "--process_reward.eta", "1"], "is an option of clip, which .*min_form does not"),
        (["--length_penalty.target", "100"], "is an option of lagrangian, which a run without --length_penalty.kind"),
        (["--length_penalty.coef", "2"], "--length_penalty.coef needs --length_penalty.kind"),
        (["--length_penalty.kind", "kimi", "--length_penalty.target", "100"], "option of lagrangian, which .*kimi"),
        (["--length_penalty.kind", "kimi", "--rollout.n_samples_per_prompt", "1"], "kimi needs --rollout.n_samples"),
        (["--length_penalty.kind", "cosine", "--length_penalty.repetition", "-1"], "--length_penalty.repetition"),
        (["--length_penalty.kind", "lcpo_max", "--length_penalty.alpha", "-1"], "--length_penalty.alpha must be above"),
        (["--algo.advantage.negative_weight", "2"], "--algo.advantage.negative_weight must lie in 0..1, got 2.0"),
        (["--algo.advantage.negative_weight", "nan"], "--algo.advantage.negative_weight must be a finite number"),
        (["--diversity.ngram", "2"], "--diversity.ngram needs --diversity.coef"),
        (["--algo.advantage.separators", "none"], "--algo.advantage.separators needs a PRM"),
        (["--vine.k", "3"], "--vine.k needs --algo.advantage.estimator vine or spo"),
        (["--algo.advantage.cut_points", "3"], "--algo.advantage.cut_points is an option of spo, which .*rloo"),
        (
            ["--algo.advantage.estimator", "tree", "--prm.url", "http://x"],
            "tree reads no process rewards: give --process_reward.coef 0",
        ),
        (
            ["--algo.advantage.estimator", "group_norm", "--process_reward.outcome_coef", "0.5"],
            "--process_reward.outcome_coef 0.5: group_norm divides",
        ),
        (["--prm.url", "http://x", "--prm.num_engines", "0"], "--prm.num_engines must be at least 1"),
        (["--prm.url", "http://x", "--prm.kv_cache_mb", "0"], "--prm.kv_cache_mb must be at least 1"),
        (["--prm.url", "http://x", "--prm.question_pattern", "user"], "--prm.question_pattern needs a group"),
        (["--prm.url", "http://x", "--prm.question_pattern", "("], "--prm.question_pattern"),
        (["--algo.advantage.estimator", "step_group"], "needs --prm.model_name_or_path or --prm.url"),
        (["--process_reward.temperature", "0"], "--process_reward.temperature must be above 0"),
        (["--length_penalty.kind", "overlong", "--length_penalty.buffer", "0"], "--length_penalty.buffer"),
        (["--prm.url", "http://x", "--vllm.num_engines", "0"], "--vllm.num_engines above 0"),
        (["--process_reward.format_pattern", "("], "--process_reward.format_pattern is no regular expression"),
        (["--process_reward.format_penalty", "1"], "needs --process_reward.format_pattern"),
        (["--process_reward.warmup_steps", "-1"], "--process_reward.warmup_steps must be at least 0"),
        (["--length_penalty.warmup_steps", "-1"], "--length_penalty.warmup_steps must be at least 0"),
        (["--length_penalty.kind", "lagrangian", "--length_penalty.rate", "0"], "--length_penalty.rate"),
        (["--diversity.threshold", "2"], "--diversity.threshold"),
        (["--watch.window", "1"], "--watch.window"),
        (["--vine.k", "0"], "--vine.k must be at least 1"),
        ([*VINE], "vine needs --vllm.enable_prefix_caching"),
        ([*VINE, "--vllm.enable_prefix_caching"], "vine needs --reward.remote_url"),
        ([*VINE, "--vllm.enable_prefix_caching", "--train.agent_func_path", "a.py"], "leave out --train.agent_func"),
        ([*VINE, "--vllm.enable_prefix_caching", "--data.max_images_per_prompt", "1"], "leave out --data.max_images"),
        ([*VINE, "--vine.values", "prm"], "--vine.values prm and --vine.control_variate need --prm.model_name"),
        ([*VINE, "--vine.control_variate"], "--vine.values prm and --vine.control_variate need --prm.model_name"),
        (["--algo.advantage.estimator", "spo", "--prm.url", "http://x"], "leave out --prm"),
        (["--algo.advantage.constant_length_norm"], "needs --actor.loss_agg_mode seq-mean-token-mean"),
        ([*IMPLICIT, "--prm.url", "http://x"], "implicit trains its own PRM: leave out --prm"),
        ([*IMPLICIT, "--algo.advantage.estimator", "tree"], "tree does not read the rewards of --process_reward"),
        ([*IMPLICIT, "--data.max_images_per_prompt", "1"], "implicit does not work with --data.max_images_per_prompt"),
        ([*IMPLICIT, "--ds.ring_attn_size", "2"], "implicit does not work with --ds.ring_attn_size"),
        ([*IMPLICIT, "--process_reward.beta", "0"], "--process_reward.beta must be above 0"),
        ([*IMPLICIT, "--online_prm.lr", "0"], "--online_prm.lr must be above 0"),
        ([*IMPLICIT, "--online_prm.batch_size", "0"], "--online_prm.batch_size must be at least 1"),
        ([*IMPLICIT, "--online_prm.gpus_per_actor", "2"], "--online_prm.gpus_per_actor must lie in"),
        ([*IMPLICIT, "--online_prm.reference", "/no/model"], "--online_prm.reference: there is no folder /no/model"),
        (["--credit.turn_rewards"], "--credit.turn_rewards needs --train.agent_func_path"),
        ([*AGENT, "--credit.turn_coef", "2"], "--credit.turn_coef needs --credit.turn_rewards"),
        ([*AGENT, "--credit.unit", "turn"], "--credit.unit needs a PRM, or an estimator"),
        ([*AGENT, "--credit.hide_observations"], "--credit.hide_observations needs --prm.model_name_or_path"),
        (
            [*AGENT, "--credit.turn_rewards", "--algo.advantage.estimator", "tree"],
            "tree reads no rewards but the outcome: leave out --credit.turn_rewards",
        ),
        (
            [*AGENT, "--credit.unit", "turn", "--prm.url", "http://x", "--steps.splitter", "newline"],
            "--steps.splitter needs",
        ),
        (["--online_prm.save"], "--online_prm.save needs --process_reward.shaping implicit"),
        (["--data.prompt_dataset", "/no/data.jsonl"], "--data.prompt_dataset: there is no file /no/data.jsonl"),
    ],
)
def test_bad_flags_are_named(flags, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        check_args(parse(*flags))


def test_rewards_of_turns_are_rewards_enough_for_an_estimator_that_knows_steps():
    check_args(parse(*AGENT, "--credit.turn_rewards", "--algo.advantage.estimator", "step_group"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rollout.n_samples_per_prompt", "1"], "--rollout.n_samples_per_prompt above 1"),
        (["--algo.advantage.gamma", "0.9"], "--algo.advantage.gamma 1"),
        (["--algo.advantage.lambd", "2"], "--algo.advantage.lambd must lie in 0..1"),
    ],
)
def test_an_estimators_needs_are_checked(flags, message):
    with pytest.raises(ValueError, match=message):
        check_args(parse("--prm.url", "http://x", "--algo.advantage.estimator", "step_group", *flags))


@pytest.mark.parametrize(
    "flags",
    [
        ["--process_reward.shaping", "nope"],
        ["--length_penalty.kind", "nope"],
        ["--steps.splitter", "nope"],
        ["--vine.values", "nope"],
        ["--algo.advantage.estimator", "nope"],
        ["--reward.remote_url", "nope"],
    ],
)
def test_unknown_names_list_what_is_allowed(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(*flags)
    assert stopped.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_outcome_rewards_have_names():
    assert Path(parse("--reward.remote_url", "exact").reward.remote_url).name == "exact_outcome.py"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "q"}', "line 2 has no 'label'"),
        ('{"label": "1"}', "line 2 has no 'question'"),
        ('{"question": 7, "label": "1"}', "line 2: 'question' must be a text or a list of messages, got 7"),
        ("[1]", "line 2 is no object with keys"),
        ("{", "line 2 is not JSON"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path, row, message):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "q", "label": "1"}) + f"\n{row}\n")
    with pytest.raises(ValueError, match=message):
        check_args(
            parse("--data.prompt_dataset", str(path), "--data.input_key", "question", "--data.label_key", "label")
        )


def test_files_without_rows_or_in_another_encoding_are_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="--data.prompt_dataset: .* has no rows"):
        check_args(parse("--data.prompt_dataset", str(path)))
    path.write_bytes('{"input": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="line 1 is not UTF-8"):
        check_args(parse("--data.prompt_dataset", str(path)))


def test_a_prm_that_shows_no_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ValueError, match="--prm.model_name_or_path: [^\n]+\\(--prm.family names it\\)$"):
        check_args(parse("--prm.model_name_or_path", str(tmp_path)))
    check_args(parse("--prm.model_name_or_path", str(tmp_path), "--prm.family", "placeholder"))


def test_the_prm_must_be_able_to_read_what_the_policy_may_write(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64, "prm": "placeholder"}')
    data = tmp_path / "data.jsonl"
    data.write_text('{"input": "ten letter", "label": "1"}\n')
    given = ["--prm.model_name_or_path", str(tmp_path), "--data.prompt_dataset", str(data), "--data.label_key", "label"]
    check_args(parse(*given, "--rollout.max_new_tokens", "53"))  # 10 + 53 + the one that vLLM keeps
    check_args(parse(*given, "--rollout.max_new_tokens", "500", "--data.max_len", "63"))  # the host cuts before
    check_args(parse(*given, "--rollout.max_new_tokens", "500", "--prm.max_model_len", "600"))
    with pytest.raises(ValueError, match="--rollout.max_new_tokens 64.*context of 64"):
        check_args(parse(*given, "--rollout.max_new_tokens", "64"))
    with pytest.raises(ValueError, match="--data.max_len 2048.*context of 64"):
        check_args(parse(*given))
