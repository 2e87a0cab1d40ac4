"""The examples of algorithms from a user's file: their options are flags, and their numbers are right."""

import pickle
from pathlib import Path

import pytest
import torch
from host_flags import parse, parser

from openrlhf_prm.advantages.estimator import StepBatch
from openrlhf_prm.length_penalties.penalty import LengthBatch
from openrlhf_prm.ppo.flag_checks import check_args
from openrlhf_prm.ppo.plugin_options import read_options
from vllm_prm.splitters import split_text

EXTENSIONS = Path(__file__).parents[3] / "examples" / "extensions"
FLAGS = (
    *("--process_reward.shaping", f"{EXTENSIONS}/shaping.py:FirstMistake", "--process_reward.price", "0.5"),
    *("--algo.advantage.estimator", f"{EXTENSIONS}/estimator.py:BestOfGroup", "--algo.advantage.decay", "0.5"),
    *("--length_penalty.kind", f"{EXTENSIONS}/penalty.py:PerToken", "--length_penalty.free", "10"),
    *("--steps.splitter", f"{EXTENSIONS}/splitter.py:sentences", "--prm.url", "http://x"),
)


def test_options_of_a_class_from_a_file_are_flags_with_bounds_and_help():
    args = parse(*FLAGS)
    check_args(args)
    options = read_options(args)
    assert (options.shaping.price, options.shaping.threshold) == (0.5, 0.0)
    assert options.estimator.decay == 0.5 and options.penalty.free == 10
    (text,) = (action.help for action in parser(FLAGS)._actions if action.dest == "process_reward.price")
    assert text.endswith("shaping.py:FirstMistake: what the first mistake costs (default 1.0)")
    with pytest.raises(ValueError, match="^--process_reward.price must be above 0, got 0.0$"):
        read_options(parse(*FLAGS, "--process_reward.price", "0"))


def test_a_class_from_a_file_goes_where_the_files_path_is_relative(monkeypatch):
    monkeypatch.chdir(EXTENSIONS)
    args = parse("--prm.url", "http://x", "--process_reward.shaping=shaping.py:FirstMistake")
    assert args.process_reward.shaping == f"{EXTENSIONS}/shaping.py:FirstMistake"


def test_options_of_other_shapings_are_still_refused():
    with pytest.raises(
        ValueError, match="--process_reward.eta is an option of clip, which .*FirstMistake does not read"
    ):
        check_args(parse(*FLAGS, "--process_reward.eta", "1"))


def test_their_numbers_by_hand():
    options = read_options(parse(*FLAGS))
    assert options.shaping(torch.tensor([0.5, -0.25, -1.0])).tolist() == [0.0, -0.5, 0.0]
    batch = StepBatch(
        process_rewards=[torch.tensor([1.0, 2.0]), torch.tensor([-1.0])],
        step_ends=[torch.tensor([1, 3]), torch.tensor([2])],
        outcome_rewards=torch.tensor([1.0, 0.0]),
        group_size=2,
    )
    assert [row.tolist() for row in options.estimator(batch)] == [[0.0, 0.0, 0.0], [-4.0, -4.0]]
    lengths = LengthBatch(lengths=torch.tensor([5, 30, 30]), correct=torch.tensor([True, True, False]))
    assert options.penalty(lengths).tolist() == pytest.approx([0.0, -0.02, 0.0])
    assert split_text("One. Two; three", options.steps.splitter) == ["One. ", "Two; ", "three"]


def test_they_travel_to_processes_that_cannot_import_them():
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    options = read_options(parse(*FLAGS))
    copied = pickle.loads(cloudpickle.dumps(options.estimator))
    assert copied.decay == 0.5 and copied.needs == options.estimator.needs


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class C: pass", "must be a frozen dataclass derived from openrlhf_prm.rewards.shaping.RewardShaping"),
        ("def C(scores): return scores", "must be a frozen dataclass derived from"),
        (
            "from dataclasses import dataclass\nfrom openrlhf_prm.rewards.shaping import RewardShaping\n"
            "@dataclass(frozen=True, kw_only=True)\nclass C(RewardShaping):\n    bare: float = 1.0",
            "whose fields are made by openrlhf_prm.options.option; not so: bare",
        ),
    ],
)
def test_a_class_that_cannot_be_built_is_named(tmp_path, source, message):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ValueError, match=f"^--process_reward.shaping .*mine.py:C .*{message}"):
        check_args(parse("--process_reward.shaping", f"{tmp_path / 'mine.py'}:C"))


def test_a_splitter_whose_offsets_do_not_rise_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def down(text): return [3, 1]")
    with pytest.raises(ValueError, match="must give offsets that rise within the text, got .3, 1."):
        split_text("a text", f"{tmp_path / 'mine.py'}:down")
