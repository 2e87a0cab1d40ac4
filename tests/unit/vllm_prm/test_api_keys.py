"""Keys from the environment and from files; no message shows one."""

import pytest

from vllm_prm.api_keys import key_from, key_is_set


def test_a_key_comes_from_the_variable_or_from_the_file_it_names(tmp_path):
    file = tmp_path / "secret"
    file.write_text("from-a-file\n")
    assert key_from("K", {"K": " abc \n"}) == "abc"
    assert key_from("K", {"K_FILE": str(file)}) == "from-a-file"
    assert key_from("K", {"K": "abc", "K_FILE": str(file)}) == "abc"
    assert key_from("K", {}) is None
    assert [key_is_set("K", each) for each in ({}, {"K": ""}, {"K": "a"}, {"K_FILE": "x"})] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("bad", ["hunter2\nx", "hunter2\tx", "hunter2 x", "hünter2", "hunter2\x00", " \n", ""])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path, bad):
    file = tmp_path / "secret"
    file.write_text(bad)
    for environment in ({"K": bad}, {"K_FILE": str(file)}):
        with pytest.raises(ValueError, match="must hold a key of printable ASCII characters") as error:
            key_from("K", environment)
        assert "unter2" not in str(error.value) and error.value.__context__ is None


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere \(K_FILE\) cannot be read: No such file"):
        key_from("K", {"K_FILE": str(tmp_path / "nowhere")})
