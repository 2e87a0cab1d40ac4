"""Relative paths of a run's flags become absolute in the driver."""

import json

from host_flags import parse

from openrlhf_prm.cluster import visibility
from openrlhf_prm.cluster.checks import prm_paths
from openrlhf_prm.ppo.paths import absolute_paths, make_absolute, require_seen


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


def test_what_a_prm_reads_beside_its_checkpoint_must_be_seen_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, prm in (("prm", {"family": "implicit", "reference": str(tmp_path / "reference")}), ("reference", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"prm": prm}))
    (tmp_path / "mine.py").write_text(
        "from vllm_prm.families import PRM_FAMILIES\nMine = PRM_FAMILIES['placeholder']\n"
    )
    asked = {}
    monkeypatch.setattr(visibility, "require_seen_by_nodes", lambda paths, **_: asked.update(paths=paths))

    def of_the_prm(*flags: str) -> list[tuple[str, str]]:
        args = parse("--prm.model_name_or_path", str(tmp_path / "prm"), *flags)
        require_seen(args, None)
        return [(flag, path) for flag, path in asked["paths"] if flag.startswith("--prm")]

    model = ("--prm.model_name_or_path", f"{tmp_path}/prm")
    assert of_the_prm() == [model, ("--prm.model_name_or_path", f"{tmp_path}/reference")]
    own = ("--prm.family", f"{tmp_path}/mine.py")
    assert of_the_prm("--prm.family", "mine.py:Mine") == [model, own]
    assert prm_paths("owner/prm", None, ("owner/reference",)) == [
        ("--prm.model_name_or_path", "owner/prm"),
        ("--prm.model_name_or_path", "owner/reference"),
    ]
