"""The server is reached from this machine alone unless told otherwise, and shows no key in the process list."""

import pytest

from vllm_prm.doors import doors

LOOPBACK = ["--host", "127.0.0.1"]


def test_loopback_is_the_default_and_what_is_given_wins():
    assert doors(["--port", "9"], {}).flags == ["--port", "9", *LOOPBACK]
    for flags in (["--host", "0.0.0.0"], ["--host=::"], ["--uds", "/tmp/x"], ["--host", "localhost", "--port", "9"]):
        assert doors(flags, {}).flags == flags


@pytest.mark.parametrize(
    ("flags", "environment", "warned"),
    [
        ([], {}, False),
        (["--host", "127.0.0.5"], {}, False),
        (["--host", "::1"], {}, False),
        (["--host", "localhost"], {}, False),
        (["--uds", "/x"], {}, False),
        (["--host", "0.0.0.0"], {"VLLM_API_KEY": "k"}, False),
        (["--host", "0.0.0.0", "--api-key", "k"], {}, False),
        (["--host", "0.0.0.0"], {}, True),
        (["--host", "node7"], {}, True),
        (["--host", ""], {}, True),
    ],
)
def test_an_open_door_without_a_key_is_said(flags, environment, warned):
    assert ["asks them for a key" in warning for warning in doors(flags, environment).warnings] == [True] * warned


def test_the_key_of_the_command_line_goes_into_the_environment():
    for flags in (["--api-key", "sesame"], ["--api_key=sesame"]):
        opened = doors(["--port", "9", *flags, "--host", "h", "--dtype=float32"], {"A": "b"})
        assert opened.flags == ["--port", "9", "--dtype=float32", "--host=h"] and opened.warnings == []
        assert opened.environment == {"A": "b", "VLLM_API_KEY": "sesame"}
    several = doors(["--api-key", "one", "two", "--port", "9"], {})
    assert several.flags == ["--api-key", "one", "two", "--port", "9", *LOOPBACK]
    assert ["process list" in warning for warning in several.warnings] == [True]


def test_a_key_from_a_file_and_a_key_that_is_none(tmp_path):
    (tmp_path / "key").write_text("sesame\n")
    assert doors([], {"VLLM_API_KEY_FILE": str(tmp_path / "key")}).environment["VLLM_API_KEY"] == "sesame"
    assert doors([], {"VLLM_API_KEY": "sesame\n"}).environment["VLLM_API_KEY"] == "sesame"
    with pytest.raises(ValueError, match="^--api-key must hold a key"):
        doors(["--api-key", "open sesame"], {})
    with pytest.raises(ValueError, match="the environment variable VLLM_API_KEY must hold a key"):
        doors([], {"VLLM_API_KEY": "open sesame"})
