"""What self-correction needs of a run, and what it cannot be combined with. Imports nothing heavy."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.data.attempts import words_between
from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.ppo.self_correction.offline import read_attempts


def check_self_correction(args: SimpleNamespace, options: PluginOptions) -> None:
    """Raises ValueError, naming the flags, for the first thing that does not fit."""
    if options.self_correction is None:
        return
    for check in (_attempts, _algorithm, _kl, _rewards, _room):
        for message in check(args, options):
            raise ValueError(message)
    prompt_options(args)
    if args.data.apply_chat_template and options.self_correction.attempts > 1:
        _check_template(args, options)


def prompt_options(args: SimpleNamespace) -> PromptOptions:
    """What the host puts around a question. Raises ValueError naming the flag."""
    try:
        return PromptOptions(
            input_template=args.data.input_template or "{}", apply_chat_template=bool(args.data.apply_chat_template)
        )
    except ValueError as error:
        raise ValueError(f"--data.{error}") from None


def _attempts(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    chosen = options.self_correction
    if chosen.stage == 1 and chosen.attempts < 2:
        yield "--self_correction.stage 1 pays for the second attempt: --self_correction.attempts must be above 1"
    if args.train.agent_func_path:
        yield "--self_correction.stage writes its attempts itself: leave out --train.agent_func_path"
    if chosen.offline_share:
        if not chosen.offline_file:
            yield "--self_correction.offline_share needs --self_correction.offline_file, which has the first attempts"
        if not Path(chosen.offline_file).is_file():
            yield f"--self_correction.offline_file: there is no file {chosen.offline_file}"
        try:
            read_attempts(chosen.offline_file)
        except ValueError as error:
            yield f"--self_correction.offline_file: {error}"
    if args.data.max_images_per_prompt:
        yield "--self_correction.stage is for text: leave out --data.max_images_per_prompt"
    if not args.reward.remote_url:
        yield "--self_correction.stage needs --reward.remote_url, which judges every attempt"


def _algorithm(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    if args.algo.advantage.estimator != "rloo":
        yield (
            "--self_correction.stage compares an attempt with the same attempt of the question's other episodes: give "
            f"--algo.advantage.estimator rloo, not {args.algo.advantage.estimator}"
        )
    if args.algo.advantage.gamma != 1.0:
        yield "--self_correction.stage needs --algo.advantage.gamma 1"
    if args.rollout.n_samples_per_prompt < 2:
        yield "--self_correction.stage needs --rollout.n_samples_per_prompt above 1"
    if args.algo.dynamic_filtering_enable:
        yield (
            "--self_correction.stage: --algo.dynamic_filtering_enable looks at last attempts alone and throws away "
            "questions whose corrections differ; leave it out"
        )


def _kl(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    chosen = options.self_correction
    if args.algo.kl.use_loss:
        yield "--self_correction.stage has a KL coefficient per attempt in the reward: leave out --algo.kl.use_loss"
    if args.algo.kl.target is not None:
        yield "--self_correction.stage holds its KL coefficients: leave out --algo.kl.target"
    beta1 = chosen.beta1 if chosen.reaches_stage_2 else None
    used = {"beta1": beta1, "beta2": chosen.beta2 if chosen.stage == 1 else None}
    if args.algo.kl.init_coef <= 0:
        for name, value in used.items():
            if value:
                yield (
                    f"--self_correction.{name} {value:g} needs --algo.kl.init_coef above 0, with which the reference "
                    "model is loaded"
                )


def _rewards(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    if options.shaping is not None and not options.shaping.pays:
        yield (
            f"--process_reward.shaping {options.process_reward.shaping} leaves responses out, and an attempt cannot be "
            "left out of its episode: choose another shaping with --self_correction.stage"
        )
    if options.penalty is not None and not options.penalty.pays:
        yield (
            f"--length_penalty.kind {options.length.kind} leaves responses out, and an attempt cannot be left out of "
            "its episode: choose another one with --self_correction.stage"
        )
    if options.online_prm is not None:
        yield (
            f"--process_reward.shaping {options.process_reward.shaping} trains its PRM on whole episodes: choose "
            "another shaping with --self_correction.stage"
        )
    for name in ("overlong_buffer_len", "stop_properly_penalty_coef"):
        if getattr(args.reward, name) is not None:
            yield (
                f"--reward.{name} charges episodes: with --self_correction.stage take "
                "--length_penalty.kind overlong or --process_reward.truncation_penalty, which charge attempts"
            )


def _room(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """Every attempt has its room whatever the ones before took."""
    count = options.self_correction.attempts
    limit = options.self_correction.attempt_tokens or args.rollout.max_new_tokens
    if limit is None and count > 1:
        yield "--self_correction.attempt_tokens or --rollout.max_new_tokens must limit the tokens of an attempt"
    if limit is not None and count * limit >= args.data.max_len:
        yield (
            f"--data.max_len {args.data.max_len} has no room for {count} attempts of {limit} tokens and the question: "
            "raise it, or lower --self_correction.attempt_tokens"
        )


def _check_template(args: SimpleNamespace, options: PluginOptions) -> None:
    from transformers import AutoTokenizer

    model = args.actor.model_name_or_path
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError):
        return  # the host says what is wrong with the checkpoint
    words_between(options.self_correction, prompt_options(args), tokenizer)
