import pytest
from pydantic import ValidationError

from vllm_prm.protocol import StepRewardItem, StepRewardRequest


def test_a_single_solution_may_stand_at_the_top_level():
    request = StepRewardRequest(**{"question": "q", "steps": ["a"], "aggregate": "min"})
    assert request.data[0].asked() == "q"
    assert request.data[0].solution_steps() == ["a"]


def test_messages_and_response():
    item = StepRewardItem(messages=[{"role": "user", "content": "q"}], response="a;; ;b", splitter=";")
    assert item.asked() == [{"role": "user", "content": "q"}]
    assert item.solution_steps() == ["a", "b"]
    assert StepRewardItem(question="q", response="a\nb").solution_steps() == ["a", "b"]
    assert StepRewardItem(question="q", response="").solution_steps() == []
    assert StepRewardItem(question="q", steps=[]).solution_steps() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": []},
        {"steps": ["a"]},
        {"question": "q"},
        {"question": "q", "steps": "a"},
        {"question": "q", "steps": ["a"], "response": "a"},
        {"question": "q", "steps": ["a"], "splitter": "\n"},
        {"question": "q", "messages": [{"role": "user", "content": "q"}], "steps": ["a"]},
        {"question": "q", "steps": ["a"], "aggregate": "median"},
        {"question": "q", "step": ["a"]},
        {"data": [{"question": "q", "steps": ["a"]}], "question": "q"},
        {"data": [{"question": "q", "steps": ["a"]}], "steps": ["a"]},
        {"question": "q", "steps": ["a"], "model": 3},
        {"question": "q", "response": "a", "splitter": ""},
    ],
)
def test_mistakes_are_refused(body):
    with pytest.raises(ValidationError):
        StepRewardRequest(**body)
