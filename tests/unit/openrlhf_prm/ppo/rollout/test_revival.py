"""Rollouts that lose an engine: the same questions are asked again, none twice to the trainer, none lost."""

import pytest
import ray

from openrlhf_prm.ppo.rollout.revival import ATTEMPTS, AskedAgain, StaleEngine, is_loss_of_engine, with_revival

DIED = ray.exceptions.ActorDiedError()


def test_prompts_come_again_before_the_rest():
    prompts = AskedAgain(iter("abcd"))
    assert [next(prompts), next(prompts)] == ["a", "b"]
    assert prompts.rewind() == 2 and next(prompts) == "a"
    assert prompts.rewind() == 2 and list(prompts) == ["a", "b", "c", "d"]
    assert prompts.rewind() == 4 and list(prompts) == ["a", "b", "c", "d"] and list(prompts) == []
    assert AskedAgain(iter(())).rewind() == 0


def run(deaths: int, error: Exception = DIED):
    """A generator that draws two prompts, and loses its engine so often; what it gave, and what happened."""
    happened, loader = [], iter("abcd")

    def generate(prompts):
        drawn = [next(prompts), next(prompts)]
        if len([each for each in happened if each == "revived"]) < deaths:
            happened.append(drawn)
            raise error
        return drawn

    return with_revival(generate, loader, lambda: happened.append("revived")), happened, list(loader)


def test_a_rollout_is_begun_again():
    assert run(0) == (["a", "b"], [], ["c", "d"])
    assert run(2) == (["a", "b"], [["a", "b"], "revived"] * 2, ["c", "d"])


def test_what_kills_engines_again_and_again_ends_the_run():
    assert run(ATTEMPTS - 1)[0] == ["a", "b"]
    with pytest.raises(ray.exceptions.ActorDiedError):
        run(ATTEMPTS)


def test_other_errors_end_it_at_once():
    of_task = ray.exceptions.RayTaskError("generate_responses", "Traceback", ValueError("no reward"))
    assert not is_loss_of_engine(of_task) and not is_loss_of_engine(ValueError())
    assert is_loss_of_engine(ray.exceptions.RayTaskError("generate_responses", "Traceback", StaleEngine("old weights")))
    with pytest.raises(ray.exceptions.RayTaskError):
        run(1, of_task)
