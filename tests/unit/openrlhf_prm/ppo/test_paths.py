"""Relative paths of a run's flags become absolute in the driver."""

from host_flags import parse

from openrlhf_prm.ppo.paths import absolute_paths, make_absolute


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("")
    flags = {
        "actor.model_name_or_path": "policy",
        "critic.model_name_or_path": None,
        "prm.model_name_or_path": "owner/prm",
        "data.prompt_dataset": "a.jsonl, owner/questions,policy@part",
        "ckpt.path": "./ckpt",
        "reward.remote_url": "http://x,http://y",
        "train.agent_func_path": None,
    }
    assert absolute_paths(flags) == {
        "actor.model_name_or_path": f"{tmp_path}/policy",
        "data.prompt_dataset": f"{tmp_path}/a.jsonl,owner/questions,{tmp_path}/policy@part",
        "ckpt.path": f"{tmp_path}/ckpt",
    }
    flags |= absolute_paths(flags)
    assert absolute_paths(flags) == {}


def test_in_the_hosts_namespace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prm").mkdir()
    args = parse("--prm.model_name_or_path", "prm", "--data.prompt_dataset", "owner/questions")
    make_absolute(args)
    assert args.prm.model_name_or_path == f"{tmp_path}/prm" and args.ckpt.path == f"{tmp_path}/ckpt"
    assert args.data.prompt_dataset == "owner/questions" and args.train.agent_func_path is None
