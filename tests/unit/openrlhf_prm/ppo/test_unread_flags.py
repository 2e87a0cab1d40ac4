"""A flag that nothing reads is an error: held for every flag of the plugin and every option of every algorithm."""

from functools import cache

import pytest
from host_flags import parse, parser

from openrlhf_prm.cli.parser import nested
from openrlhf_prm.options import option_fields
from openrlhf_prm.ppo.flag_checks import check_args
from openrlhf_prm.ppo.flags import CHOICES, GROUPS, HOST_ESTIMATOR_FLAGS
from openrlhf_prm.ppo.plugin_options import read_options
from openrlhf_prm.ppo.unread_flags import refuse_unread_flags

OPTIONS = {
    (prefix, field.name): (options, field)
    for prefix, options in [
        *((group.prefix, group.options) for group in GROUPS),
        *((choice.prefix, algorithm) for choice in CHOICES.values() for algorithm in choice.registry.values()),
    ]
    for field in option_fields(options)
    if field.name not in HOST_ESTIMATOR_FLAGS
}
"""Of every flag of the plugin: a class that has it, and its field."""


def given(prefix: str, name: str) -> list[str]:
    """The flag with a value that is allowed and not the default."""
    options, field = OPTIONS[prefix, name]
    flag, metadata = f"--{prefix}.{name}", field.metadata
    if metadata["kind"] is bool:
        return [f"--{prefix}.no_{name}" if field.default else flag]
    candidates = metadata["choices"] or metadata["registry"] or (0.25, 7, 0.75, 300, -0.5, "{} (x)", 2)
    for value in candidates:
        if type(value) is metadata["kind"] and value != field.default:
            try:
                options(**{name: value})
            except ValueError:
                continue
            return [flag, str(value)]
    return [flag, "a value that its class refuses"]


@cache
def shared_parser():
    return parser()


def arguments(*flags: str):
    return nested(shared_parser().parse_args(flags))


def test_every_option_of_every_group_and_every_algorithm_is_a_flag_with_its_meaning():
    actions = {action.dest: action for action in reversed(shared_parser()._actions)}
    for (prefix, name), (_, field) in OPTIONS.items():
        text = actions[f"{prefix}.{name}"].help
        assert field.metadata["text"].replace("%", "%%") in text
        silent = field.default in (None, ()) or field.default is False
        assert silent or f"{field.default}" in text, "the default is shown"
    flags = {dest for dest in actions if dest.rpartition(".")[0] in {prefix for prefix, _ in OPTIONS}}
    hosts = {f"algo.advantage.{name}" for name in ("estimator", "gamma", "lambd", "no_std_norm")}
    hosts |= {dest for dest in flags if dest.startswith("reward.")} - {"reward.timeout"}
    assert flags - hosts == {f"{prefix}.{name}" for prefix, name in OPTIONS}


@pytest.mark.parametrize(("prefix", "name"), OPTIONS)
def test_in_a_run_of_the_host_alone_a_flag_makes_the_plugin_act_or_is_an_error(prefix, name):
    args = arguments(*given(prefix, name))
    try:
        check_args(args)
    except ValueError as error:
        assert f"--{prefix}.{name}" in str(error)
    else:  # how long rewards are waited for changes nothing of what is trained
        assert read_options(args).acts or (prefix, name) == ("reward", "timeout")


ENOUGH = ("--prm.url", "http://x", "--vllm.enable_prefix_caching", "--reward.remote_url", "http://x")


@pytest.mark.parametrize(("field", "chosen"), [(field, name) for field in CHOICES for name in CHOICES[field].registry])
def test_options_of_other_algorithms_than_the_chosen_one_are_errors(field, chosen):
    choice = CHOICES[field]
    shared = {
        option.name for group in GROUPS if group.prefix == choice.prefix for option in option_fields(group.options)
    }
    read = {option.name for option in option_fields(choice.registry[chosen])}
    others = {option.name for kind in choice.registry.values() for option in option_fields(kind)} - read - shared
    for name in others - set(HOST_ESTIMATOR_FLAGS):
        args = arguments(*ENOUGH, choice.flag, chosen, *given(choice.prefix, name))
        with pytest.raises(ValueError, match=f"^--{choice.prefix}.{name} is an option of .* {chosen} does not read$"):
            refuse_unread_flags(args, read_options(args))


@pytest.mark.parametrize(("field", "chosen"), [(field, name) for field in CHOICES for name in CHOICES[field].registry])
def test_options_of_the_chosen_algorithm_are_read(field, chosen):
    choice = CHOICES[field]
    for option in option_fields(choice.registry[chosen]):
        if option.name not in HOST_ESTIMATOR_FLAGS:
            flag = f"--{choice.prefix}.{option.name}"
            value = [f"--{choice.prefix}.no_{option.name}"] if option.default is True else [flag]
            value += [str(option.default)] if option.metadata["kind"] is not bool else []
            if option.default == "":
                continue
            args = arguments(*ENOUGH, choice.flag, chosen, *value)
            refuse_unread_flags(args, read_options(args))


def test_what_only_a_server_or_only_workers_read():
    with pytest.raises(ValueError, match="^--prm.num_engines needs --prm.model_name_or_path$"):
        check_args(parse("--prm.url", "http://x", "--prm.num_engines", "1"))


def test_options_that_go_with_others():
    vine = (*ENOUGH, "--algo.advantage.estimator", "vine")
    read_too = {"--vine.half_width": "0.1", "--vine.k_min": "2"}
    refuse_unread_flags(args := parse(*vine, *(part for pair in read_too.items() for part in pair)), read_options(args))
    for flags, message in (
        (["--vine.probes", "2"], "--vine.probes needs --vine.control_variate"),
        (["--vine.values", "prm", "--vine.k", "2"], "--vine.k needs --vine.values rollouts"),
        (
            ["--length_penalty.kind", "cosine", "--length_penalty.repetition", "0", "--length_penalty.ngram", "3"],
            "ngram",
        ),
        (["--process_reward.format_penalty", "1"], "--process_reward.format_penalty needs --process_reward.format_pa"),
        (["--diversity.coef", "0", "--diversity.ngram", "2"], "--diversity.ngram needs --diversity.coef"),
    ):
        args = parse(*vine, *flags)
        with pytest.raises(ValueError, match=message):
            refuse_unread_flags(args, read_options(args))
