"""Folders of checkpoints as kills leave them: which one is gone on from, and which are deleted."""

import json
import os
from pathlib import Path

import pytest

from openrlhf_prm.cluster import checkpoints
from openrlhf_prm.cluster.checkpoints import (
    CheckpointError,
    delete_others,
    other_hands,
    tag_to_load,
    unreadable,
    unwritten,
)


def folder(path: Path, *tags: str, torn: tuple[str, ...] = (), latest: str | None = None, metrics=()) -> Path:
    """`tags` in the order in which they were written, of 100 bytes of weights each."""
    path.mkdir(parents=True)
    metrics = dict(metrics)
    for at, tag in enumerate([*tags, *torn]):
        (path / tag).mkdir()
        (path / tag / "mp_rank_00_model_states.pt").write_bytes(b"x" * 100)
        if tag in tags:
            mark = path / tag / checkpoints.MARK
            mark.write_text(json.dumps({"metric_value": metrics.get(tag)}))
            os.utime(mark, (at, at))
    if latest is not None:
        (path / checkpoints.LATEST).write_text(latest)
    return path


def test_the_run_goes_on_from_latest_or_what_is_whole_and_newest(tmp_path):
    assert tag_to_load(folder(tmp_path / "a", "s1", "s2", latest="s1")) == "s1"
    assert tag_to_load(folder(tmp_path / "b", "s1", "s2", torn=("s3",))) == "s2", "latest was torn"
    assert tag_to_load(folder(tmp_path / "c", "s1", latest="")) == "s1"
    assert tag_to_load(folder(tmp_path / "d", "s1", latest="s9")) == "s1", "deleted by hand"
    assert tag_to_load(folder(tmp_path / "e", torn=("s1",), latest="s1")) == "s1", "killed before the mark"
    assert tag_to_load(folder(tmp_path / "f", torn=("s1",))) is None, "never finished one"
    assert tag_to_load(tmp_path / "nothing") is None
    with pytest.raises(CheckpointError, match="names s9, which is not there, nor any other.*start afresh"):
        tag_to_load(folder(tmp_path / "g", latest="s9"))


def test_latest_is_believed_only_where_no_checkpoint_was_marked_as_whole(tmp_path):
    """DeepSpeed names a checkpoint before all ranks have written theirs."""
    path = folder(tmp_path / "a", "s1", torn=("s2",), latest="s2")
    assert tag_to_load(path) == "s1"
    assert [place.name for place in delete_others(path, "s1", 3, 1e9)] == ["s2"]


def test_policy_and_critic_go_on_from_the_same_update(tmp_path):
    actor = folder(tmp_path / "_actor", "s1", "s2", latest="s2")
    critic = folder(tmp_path / "_critic", "s1", torn=("s2",), latest="s1")
    assert tag_to_load(actor, [critic]) == tag_to_load(critic, [actor]) == "s1"
    assert tag_to_load(actor, [tmp_path / "none"]) is None, "the critic never finished one: both begin afresh"


@pytest.mark.parametrize(
    ("keep", "most", "left"),
    [
        (1, 1e9, {"s3", "best1"}),
        (0, 1e9, {"s3", "best1"}),
        (2, 1e9, {"s2", "s3", "best1"}),
        (9, 1e9, {"s1", "s2", "s3", "best1"}),
        (9, 1, {"s3", "best1"}),
    ],
)
def test_what_was_just_written_is_never_deleted(tmp_path, keep, most, left):
    path = folder(tmp_path / "a", "s1", "s2", "best1", "s3", torn=("s0",), latest="s3", metrics={"s2": 0.9, "s1": 0.1})
    deleted = delete_others(path, "s3", keep, most)
    assert {place.name for place in path.iterdir() if place.is_dir()} == left
    assert {place.name for place in deleted} == {"s0", "s1", "s2", "best1"} - left


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    path = folder(tmp_path / "a", "s1", "s2", latest="s2")
    (path / "mine").mkdir()
    (path / "mine" / "thesis.tex").write_text("x")
    assert [place.name for place in delete_others(path, "s2", 1, 1)] == ["s1"]
    assert (path / "mine" / "thesis.tex").exists()


def test_a_best_replaces_the_best_alone_and_what_is_held_stays(tmp_path):
    path = folder(tmp_path / "a", "best1", "s1", "best2", latest="best2")
    assert [place.name for place in delete_others(path, "best2", 1, 1e9)] == ["best1"]
    path = folder(tmp_path / "b", "s1", "s2", latest="s2")
    assert delete_others(path, "s2", 1, 1e9, held=["s1"]) == [], "the critic has not written s2 yet"


def test_what_is_written_once_more_is_not_whole_meanwhile(tmp_path):
    path = folder(tmp_path / "a", "s1", "s2", latest="s2")
    checkpoints.forget(path, "s2")
    assert tag_to_load(path) == "s1"


def test_a_broken_one_is_named_with_what_to_do(tmp_path):
    path = folder(tmp_path / "a", "s1", "s2", latest="s2")
    said = str(unreadable(path, "s2", AssertionError("unexpected pos\n 64 vs 12")))
    assert str(path / "s2") in said and "AssertionError: unexpected pos 64 vs 12" in said and "\n" not in said
    assert said.endswith("delete that folder, and the run goes on from s1")
    assert "start afresh" in str(unreadable(folder(tmp_path / "b", "s2"), "s2", EOFError()))


def test_one_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    path = folder(tmp_path / "a", "s1", torn=("s2",))
    said = str(unwritten(path, "s2", OSError(28, "No space left on device")))
    assert f"{path / 's2'} cannot be written (OSError: [Errno 28] No space left on device)" in said
    assert said.endswith("--ckpt.load_enable goes on from s1")
    assert "starts afresh" in str(unwritten(folder(tmp_path / "b", torn=("s1",)), "s1", RuntimeError("unexpected pos")))


def test_who_else_may_have_written_a_checkpoint(tmp_path, monkeypatch):
    path = folder(tmp_path / "a", "s1")
    weights = path / "s1" / "mp_rank_00_model_states.pt"
    for place in (path, path / "s1", weights):
        place.chmod(0o775)
    assert other_hands(path, "s1") is None, "one's own group is oneself"
    for place in (path, path / "s1", weights):
        place.chmod(0o777)
        assert other_hands(path, "s1") == f"{place} can be written by everybody"
        place.chmod(0o755)
    path.chmod(0o1777)
    assert other_hands(path, "s1") is None, "in a sticky folder nobody replaces what is another's"
    path.chmod(0o775)
    with monkeypatch.context() as other:
        other.setattr(os, "getegid", lambda: path.stat().st_gid + 1)
        assert other_hands(path, "s1") == f"{path} can be written by another group ({path.stat().st_gid})"
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if os.getuid() == 0:
        assert other_hands(path, "s1") is None, "root may do anything anyway"
        for place in (path, path / "s1"):
            os.chown(place, 4711, -1)
        os.chown(weights, 4712, -1)
        assert other_hands(path, "s1") == f"{weights} belongs to another user (4712)"
    else:
        assert other_hands(path, "s1").startswith(f"{path} belongs to another user (")
