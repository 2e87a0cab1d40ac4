import jsonschema
import pytest
from pydantic import ValidationError

from vllm_prm.protocol import StepRewardItem, StepRewardRequest


def schema_says(body: dict) -> bool:
    return jsonschema.Draft202012Validator(StepRewardRequest.model_json_schema()).is_valid(body)


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        ({"question": "q", "steps": ["a"]}, True),
        ({"question": "q", "response": None}, False),
        ({"question": None, "response": "a"}, False),
        ({"question": "q", "response": None, "steps": ["a"]}, True),
        ({"question": "q", "messages": None, "steps": ["a"], "data": None}, True),
        ({"data": None}, False),
        ({"data": [{"question": "q", "response": None}]}, False),
        ({"data": [{"question": "q", "steps": None, "response": "a"}]}, True),
    ],
)
def test_the_schema_and_the_server_agree_on_null(body, fine):
    assert schema_says(body) is fine
    try:
        StepRewardRequest(**body)
    except ValidationError:
        assert not fine
    else:
        assert fine


def test_a_single_solution_may_stand_at_the_top_level():
    request = StepRewardRequest(**{"question": "q", "steps": ["a"], "aggregate": "min"})
    assert request.data[0].asked() == "q"
    assert request.data[0].solution_steps() == ["a"]


def test_messages_and_response():
    item = StepRewardItem(messages=[{"role": "user", "content": "q"}], response="a;; ;b", splitter=";")
    assert item.asked() == [{"role": "user", "content": "q"}]
    assert item.solution_steps() == ["a", "b"]
    assert StepRewardItem(question="q", response="a\nb").solution_steps("\n") == ["a", "b"]
    assert StepRewardItem(question="q", response="").solution_steps("\n") == []
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


def test_rules_for_responses_without_markers():
    text = "To find x:\n\\[\nx=2\n\n\\]\n\nSo x is 2.\n\n \n\n- a\n- b\n"
    item = StepRewardItem(question="q", response=text, splitter="auto")
    assert item.solution_steps("\n") == ["To find x:\n\\[\nx=2\n\n\\]", "So x is 2.", "- a\n- b"]
    sentences = "By $a. B$ the sum is 2.5 e.g. here. " * 20
    assert set(StepRewardItem(question="q", response=sentences, splitter="auto").solution_steps()) == {
        "By $a. B$ the sum is 2.5 e.g. here."
    }
    by_lines = StepRewardItem(question="q", response="a\n\nb\nc", splitter="newline")
    assert by_lines.solution_steps() == ["a", "b", "c"]
    assert StepRewardItem(question="q", response=" \n", splitter="auto").solution_steps() == []
    no_code = StepRewardItem(question="q", response="a code.py:cut b", splitter="code.py:cut")
    assert no_code.solution_steps() == ["a ", " b"]


def test_who_says_where_a_response_is_split():
    text = "To find x:\n\\[x=2\\]\n\nSo x is 2."
    item = StepRewardItem(question="q", response=text)
    assert item.solution_steps("\n\n") == ["To find x:\n\\[x=2\\]", "So x is 2."]
    assert len(item.solution_steps("\n")) == 3
    assert StepRewardItem(question="q", response=text, splitter="\n").solution_steps("\n\n") == item.solution_steps(
        "\n"
    )
    with pytest.raises(ValueError, match="a response needs its splitter"):
        item.solution_steps()
