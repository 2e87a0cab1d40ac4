"""Target lengths in prompts: written, read back, and the same whenever the row comes again."""

import pytest

from openrlhf_prm.length_penalties.targets import read_target, target_of_row, with_target

TEMPLATE = "Think for {} tokens."


def test_a_target_is_written_behind_the_prompt_and_read_back():
    assert with_target("1+1=?", TEMPLATE, 120) == "1+1=? Think for 120 tokens."
    assert with_target("1+1=?\n", TEMPLATE, 120) == "1+1=?\nThink for 120 tokens."
    assert read_target("Think for 5 tokens. <user>1+1=? Think for 120 tokens.</user>", TEMPLATE) == 120


def test_a_chat_gets_it_in_its_last_user_message():
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]
    written = with_target(chat, TEMPLATE, 7)
    assert written[1]["content"] == "q Think for 7 tokens." and chat[1]["content"] == "q"
    with pytest.raises(ValueError, match="no user message"):
        with_target(chat[:1], TEMPLATE, 7)


def test_a_prompt_without_a_target_is_an_error():
    with pytest.raises(ValueError, match="--length_penalty.target_template 'Think for {} tokens.' does not occur"):
        read_target("1+1=?", TEMPLATE)


def test_targets_depend_on_row_and_seed_alone_and_fill_their_range():
    targets = [target_of_row(row, 0, 1, 4) for row in range(400)]
    assert targets == [target_of_row(row, 0, 1, 4) for row in range(400)]
    assert targets != [target_of_row(row, 1, 1, 4) for row in range(400)]
    assert all(80 <= targets.count(value) <= 120 for value in range(1, 5))
