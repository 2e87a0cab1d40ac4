"""What a policy wrote is told from its prompt, however decoding and cutting changed that."""

import asyncio

import pytest

from openrlhf_prm.answers.checkers import math_answer
from openrlhf_prm.answers.outcome import judge
from openrlhf_prm.answers.own_response import WRITTEN, behind_prompt


def test_the_response_stands_behind_the_prompt():
    assert behind_prompt("Q: 1+1\n2", "Q: 1+1\n") == "2"
    assert behind_prompt("2", "") == "2"


def test_decoding_may_change_white_space_in_the_prompt():
    assert behind_prompt("<s> [INST] 1 + 1 [/INST] 2", "<s>[INST] 1+1 [/INST]") == " 2"


def test_the_host_may_have_cut_the_prompt():
    prompt = "Q: 3+4\nA: \\boxed{7}\nQ: 1+1\nA:"
    assert behind_prompt("1\nA: \\boxed{2}", prompt) == " \\boxed{2}"
    assert behind_prompt("\\boxed{7}\nQ: 1+1\nA: 2", prompt) == " 2", "as much of the prompt's end as is there"


def test_a_query_without_its_prompt_is_an_error():
    with pytest.raises(ValueError, match="not found behind its prompt"):
        behind_prompt("something else", "Q: 1+1")


def test_an_answer_of_the_prompts_examples_is_not_judged():
    prompt = "<s>[INST] 3+4? \\boxed{7} 5+2? [/INST]"
    silent, right = "<s> [INST] 3+4? \\boxed{7} 5+2? [/INST] well", "<s> [INST] 3+4? \\boxed{7} 5+2? [/INST] \\boxed{7}"
    assert judge(math_answer, [silent], [prompt], ["7"])["rewards"] == 0.0
    assert judge(math_answer, [right], [prompt], ["7"])["rewards"] == 1.0


def test_the_policys_own_tokens_are_what_counts():
    async def judged(written):
        WRITTEN.set(lambda: written)
        return await asyncio.to_thread(judge, math_answer, ["x \\boxed{7} y"], ["another prompt"], ["7"])

    assert asyncio.run(judged("\\boxed{7}"))["rewards"] == 1.0
    assert asyncio.run(judged("nothing"))["rewards"] == 0.0
