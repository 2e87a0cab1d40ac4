"""The doctor's flags, and that it judges what it was told. `tests/stack/test_doctor.py` asks this machine."""

import json

import pytest

from openrlhf_prm.cli.doctor import main
from openrlhf_prm.diagnosis import child


@pytest.mark.parametrize("flags", [["--for", "ppo"], ["--timeout", "0"], ["--timeout", "-1"], ["--path", "x"]])
def test_a_wrong_flag_is_one_line(flags, capsys):
    with pytest.raises(SystemExit) as end:
        main(flags)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_never_answers_is_named_and_blocks(monkeypatch, capsys):
    """Every topic is ended at once; nothing is waited for."""
    assert main(["--timeout", "0.001"]) == 4 + 8 + 16
    said = capsys.readouterr().out
    for check in ("names of vLLM", "names of hosts", "PyTorch", "Ray"):
        assert any(line.split("  ")[0] == "FAULT" and f" {check} " in line for line in said.splitlines()), said
    assert said.count("no answer in 0.001 s (--timeout waits longer)") == len(child.TOPICS)
    assert main(["--timeout", "0.001", "--for", "train-prm"]) == 8
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("train-prm  cannot run: names of hosts, ")


def test_paths_are_asked_for_in_full_wherever_a_worker_runs(monkeypatch, tmp_path):
    asked = {}

    def ask(topic, limit_s, *arguments):
        asked[topic] = json.loads(json.dumps(arguments))
        return None, "not asked"

    monkeypatch.setattr(child, "ask", ask)
    monkeypatch.chdir(tmp_path)
    main(["--paths", "prm", "--timeout", "100"])
    paths, groups, limit_s = asked["nodes"]
    assert paths == [str(tmp_path / "prm")] and limit_s == pytest.approx(70)
    assert "vllm.general_plugins" in groups
