"""What the commands share that let a policy write into a file that is continued."""

import pytest

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
