"""Outcome rewards by name: the host gets the path of a file, and that file judges as the checker of that name."""

import importlib.util
import json

import pytest

from openrlhf_prm.answers.checkers import ANSWER_CHECKERS
from openrlhf_prm.answers.outcome_rewards import OUTCOME_REWARD_FILES, outcome_reward


def test_every_answer_checker_has_an_outcome_reward():
    assert list(OUTCOME_REWARD_FILES) == list(ANSWER_CHECKERS)


@pytest.mark.parametrize("name", OUTCOME_REWARD_FILES)
def test_a_name_becomes_a_file_that_judges_as_its_checker(name):
    # As the host loads it.
    spec = importlib.util.spec_from_file_location("reward_func", outcome_reward(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    metadata = {"source_dataset": "chain_sum", "difficulty": {}}
    label = json.dumps({"question": "1/2?", "answer": "0.5", "metadata": metadata}) if "gym" in name else "0.5"
    for answer in ("0.5", "1/2", "0.25"):
        result = module.reward_func([f"Q?Answer: {answer}"], ["Q?"], [label])
        assert result["rewards"] == float(ANSWER_CHECKERS[name](f"Answer: {answer}", label))
        assert result["scores"] == result["extra_logs"]["accuracy"] == result["rewards"]


def test_exact_and_math_differ_in_what_they_accept():
    assert [ANSWER_CHECKERS[name]("Answer: 1/2", "0.5") for name in ("math", "exact")] == [True, False]


def test_a_users_file_and_addresses_stay_as_they_are(tmp_path):
    (tmp_path / "mine.py").write_text("")
    for value in (str(tmp_path / "mine.py"), "http://a:1/reward", "http://a,https://b"):
        assert outcome_reward(value) == value


@pytest.mark.parametrize("value", ["maths", "math,http://a", "exact,math", "a.py,http://a", "http://a,a.py", "host:80"])
def test_wrong_names_and_mixed_lists_say_what_is_allowed(value):
    with pytest.raises(ValueError, match="must be one of math, exact, reasoning_gym, one FILE.py with reward_func, or"):
        outcome_reward(value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="^there is no file no_such.py$"):
        outcome_reward("no_such.py")
