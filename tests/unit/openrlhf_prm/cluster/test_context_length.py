"""Whether what a policy may write fits what a PRM reads, from a checkpoint's files."""

import pytest

from examples.quickstart.make_policy import build_tokenizer
from openrlhf_prm.cluster.context_length import model_context, require_room, response_limit


def test_contexts(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"text_config": {"max_position_embeddings": 32}}')
    assert model_context(str(tmp_path)) == 32 and model_context(str(tmp_path), 16) == 16
    require_room(str(tmp_path), None, ["ten letter"], 21)  # 10 + 21 + 1
    with pytest.raises(ValueError, match="32"):
        require_room(str(tmp_path), None, ["x"], 32)
    config.write_text('{"max_position_embeddings": 32, "rope_scaling": {"rope_type": "yarn", "factor": 4}}')
    assert model_context(str(tmp_path)) is None and model_context("owner/name") is None
    require_room(str(tmp_path), None, ["x"], 10**6)


def test_questions_are_counted_with_the_prms_tokenizer(tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 32}')
    require_room(str(tmp_path), None, ["12345"], 26)
    with pytest.raises(ValueError, match="a question of 6 "):
        require_room(str(tmp_path), None, ["123456"], 26)


def test_a_limit_that_was_left_open_fits_the_prm(tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 512}')
    limit = lambda given, questions, longest=None: response_limit(given, 1024, str(tmp_path), longest, questions)  # noqa: E731
    assert limit(None, ["1", "12345678901"]) == 375  # 3/4 of 512 - 1 - 11
    assert limit(None, ["12345678901"], 2048) == 1024
    assert limit(None, ["1" * 1023], 2048) == 1024 and limit(None, ["1" * 1024], 2048) == 767
    assert limit(None, ["1" * 600]) == 1
    assert limit(500, ["12345678901"]) == 500
    with pytest.raises(ValueError, match="--rollout.max_new_tokens 501: .*a question of 11 does not fit .* of 512"):
        limit(501, ["12345678901"])
    assert response_limit(None, 1024, "owner/name", None, ["x"]) == 1024
