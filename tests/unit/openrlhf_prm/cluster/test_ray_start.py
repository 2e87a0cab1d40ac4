"""A Ray that starts slowly is started again, a few times, and nothing else is."""

import inspect
import logging
import warnings

import pytest
import ray._private.worker

from openrlhf_prm.cluster import ray_start

SLOW = Exception("The current node timed out during startup. This could happen because ...")


@pytest.fixture
def starts(monkeypatch):
    """Makes Ray answer its starts with these errors, None for one that works; how often it was asked."""
    asked: list[tuple] = []

    def answer(*errors: Exception | None) -> list[tuple]:
        following = iter(errors)

        def init(address, **options):
            asked.append((address, options))
            if error := next(following):
                raise error

        monkeypatch.setattr(ray_start.ray, "init", init)
        return asked

    monkeypatch.setattr(ray_start.ray, "shutdown", lambda: asked.append("shutdown"))
    return answer


def test_a_slow_start_is_tried_again_and_said(starts, caplog):
    asked = starts(SLOW, None)
    with caplog.at_level(logging.WARNING):
        ray_start.init_ray("local", include_dashboard=False)
    call = ("local", {"include_dashboard": False})
    assert asked == [call, "shutdown", call]
    assert [record.message for record in caplog.records] == [
        "Ray's node did not start within 30 s, try 1 of 3; this machine is busy"
    ]


def test_there_is_an_end(starts):
    asked = starts(*[SLOW] * ray_start.TRIES)
    with pytest.raises(RuntimeError, match="3 tries of 30 s"):
        ray_start.init_ray()
    assert asked.count((None, {})) == ray_start.TRIES


def test_another_error_is_not_ours(starts):
    asked = starts(ConnectionError("no cluster"))
    with pytest.raises(ConnectionError, match="no cluster"):
        ray_start.init_ray()
    assert len(asked) == 1


def test_rays_tip_at_each_start_is_left_out_and_nothing_else(monkeypatch):
    assert f'"{ray_start._TIP}' in inspect.getsource(ray._private.worker)

    def init(address, **options):
        warnings.warn(f"{ray_start._TIP}, Ray will no longer override", FutureWarning, stacklevel=1)
        warnings.warn("something else", FutureWarning, stacklevel=1)

    monkeypatch.setattr(ray_start.ray, "init", init)
    with pytest.warns(FutureWarning) as said:
        ray_start.init_ray()
    assert [str(one.message) for one in said] == ["something else"]
