"""What the commands share that let a policy write into a file that is continued."""

from types import SimpleNamespace

import pytest

from openrlhf_prm.annotation.url_engine import API_KEY
from openrlhf_prm.cli import generate, policy_command, rejection_sample


@pytest.mark.parametrize("command", [generate, rejection_sample])
@pytest.mark.parametrize("dry", [True, False])
def test_only_a_dry_run_may_ask_the_hub(monkeypatch, tmp_path, capsys, command, dry):
    prepared = []
    monkeypatch.setattr(policy_command, "prepare_environment", prepared.append)
    flags = ["--actor.model_name_or_path", str(tmp_path), "--data.input", str(tmp_path / "none.jsonl")]
    flags += ["--data.output", str(tmp_path / "out.jsonl"), *(["--dry_run"] if dry else [])]
    with pytest.raises(SystemExit, match="2"):
        command.main(flags)
    assert prepared == [dry] and capsys.readouterr().err.count("\n") == 1


def test_a_key_that_no_header_holds_is_refused_without_being_shown_where_servers_are_asked(monkeypatch):
    monkeypatch.setenv(API_KEY, "hunter2\nhunter2")
    policy_command.check_urls(SimpleNamespace(rollout=SimpleNamespace(urls=[])))
    with pytest.raises(ValueError, match="^--rollout.urls: the environment variable OPENAI_API_KEY must hold") as error:
        policy_command.check_urls(SimpleNamespace(rollout=SimpleNamespace(urls=["http://a"])))
    assert "hunter2" not in str(error.value)
