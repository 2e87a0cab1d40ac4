"""The detector of reward hacking on made-up runs: it speaks when it should and stays quiet otherwise."""

import random

import pytest

from openrlhf_prm.ppo.watching import HackingDetector, WatchOptions


def reports(rewards, accuracies, **options) -> list[int]:
    detector = HackingDetector(WatchOptions(**options))
    pairs = enumerate(zip(rewards, accuracies, strict=True))
    return [n for n, (reward, accuracy) in pairs if detector.update([reward], accuracy)]


def series(slope, noise, seed, length=60):
    rng = random.Random(seed)
    return [slope * n + rng.gauss(0, noise) for n in range(length)]


def test_reward_up_and_accuracy_down_is_reported():
    assert reports(series(0.05, 0.1, 0), series(-0.02, 0.05, 1))[0] < 40


@pytest.mark.parametrize(("reward", "accuracy"), [(0.05, 0.02), (-0.05, -0.02), (0.0, -0.02), (0.05, 0.0)])
def test_one_trend_alone_is_not(reward, accuracy):
    assert reports(series(reward, 0.1, 2), series(accuracy, 0.05, 3)) == []


def test_noise_is_hardly_ever_reported():
    reported = [bool(reports(series(0.0, 0.1, seed), series(0.0, 0.1, seed + 1000))) for seed in range(15)]
    assert not any(reported)


def test_one_of_several_rewards_is_enough():
    detector = HackingDetector(WatchOptions())
    pairs = zip(series(-0.02, 0.05, 1), series(0.05, 0.1, 0), strict=True)
    # The first reward falls with accuracy, as one that holds the outcome does; the step scores rise.
    assert any(detector.update([accuracy - 1.0, score], accuracy) for accuracy, score in pairs)


def test_a_run_that_was_hacked():
    """A quickstart whose policy found steps that its PRM misjudges, from update 6 on: accuracies and step scores."""
    accuracies = [0.49, 0.48, 0.51, 0.59, 0.50, 0.31, 0.40, 0.30, 0.34, 0.24, 0.10, 0.13, 0.15, 0.19, 0.11]
    scores = [0.44, 0.48, 0.47, 0.62, 0.64, 0.78, 0.72, 0.78, 0.83, 0.78, 0.76, 0.81, 0.77, 0.77, 0.80]
    assert reports(scores, accuracies)[0] <= 12


def test_nothing_before_half_the_window_and_nothing_for_constants():
    assert reports(range(12), range(12, 0, -1), window=12, alpha=0.01) == [5, 6, 7, 8, 9, 10, 11]
    assert reports([1.0] * 30, series(-1, 0.1, 0, 30)) == []
    assert reports(series(1, 0.1, 0, 30), [0.5] * 30) == []


def test_a_restored_window_goes_on_where_it_was():
    rewards, accuracies = series(0.05, 0.1, 0), series(-0.02, 0.05, 1)
    whole = reports(rewards, accuracies)
    first, second = HackingDetector(WatchOptions()), HackingDetector(WatchOptions())
    warned = [n for n in range(30) if first.update([rewards[n]], accuracies[n])]
    second.load_state_dict(first.state_dict())
    assert warned + [n for n in range(30, 60) if second.update([rewards[n]], accuracies[n])] == whole


@pytest.mark.parametrize("options", [{"window": 2}, {"alpha": 0.0}])
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} "):
        WatchOptions(**options)
