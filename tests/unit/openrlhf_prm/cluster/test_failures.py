"""What Ray wraps around an error is taken off again."""

import ray

from openrlhf_prm.cluster.failures import LONGEST, one_line


def wrapped(error: BaseException) -> ray.exceptions.RayTaskError:
    return ray.exceptions.RayTaskError("fit", "Traceback ...\n" + str(error), error)


def test_the_error_at_the_bottom_is_said():
    assert one_line(wrapped(wrapped(ValueError("--reward.remote_url\n gave nan")))) == "--reward.remote_url gave nan"
    assert one_line(KeyError("episode")) == "KeyError: 'episode'"
    assert one_line(ray.exceptions.ActorDiedError()).startswith("a process of the run died: ")
    assert len(one_line(RuntimeError("x" * 9999))) < LONGEST + 9
