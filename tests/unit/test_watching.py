"""The detector of reward hacking on made-up runs: it speaks when it should and stays quiet otherwise."""

import random

import pytest

from openrlhf_prm.watching import HackingDetector, WatchOptions


def reports(rewards, accuracies, **options) -> list[int]:
    detector = HackingDetector(WatchOptions(**options))
    return [n for n, pair in enumerate(zip(rewards, accuracies, strict=True)) if detector.update(*pair)]


def series(slope, noise, seed, length=60):
    rng = random.Random(seed)
    return [slope * n + rng.gauss(0, noise) for n in range(length)]


def test_reward_up_and_accuracy_down_is_reported():
    assert reports(series(0.05, 0.1, 0), series(-0.02, 0.05, 1))[0] < 40


@pytest.mark.parametrize(("reward", "accuracy"), [(0.05, 0.02), (-0.05, -0.02), (0.0, -0.02), (0.05, 0.0)])
def test_one_trend_alone_is_not(reward, accuracy):
    assert reports(series(reward, 0.1, 2), series(accuracy, 0.05, 3)) == []


def test_noise_is_hardly_ever_reported():
    found = [bool(reports(series(0.0, 0.1, seed), series(0.0, 0.1, seed + 1000))) for seed in range(15)]
    assert not any(found)


def test_nothing_before_the_window_is_full_and_nothing_for_constants():
    assert reports(range(6), range(6, 0, -1), window=6, alpha=0.01) == [5]
    assert reports([1.0] * 30, series(-1, 0.1, 0, 30)) == []
    assert reports(series(1, 0.1, 0, 30), [0.5] * 30) == []


def test_a_restored_window_goes_on_where_it_was():
    rewards, accuracies = series(0.05, 0.1, 0), series(-0.02, 0.05, 1)
    whole = reports(rewards, accuracies)
    first, second = HackingDetector(WatchOptions()), HackingDetector(WatchOptions())
    found = [n for n in range(30) if first.update(rewards[n], accuracies[n])]
    second.load_state_dict(first.state_dict())
    assert found + [n for n in range(30, 60) if second.update(rewards[n], accuracies[n])] == whole


@pytest.mark.parametrize("options", [{"window": 2}, {"alpha": 0.0}])
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"--watch.{next(iter(options))}"):
        WatchOptions(**options)
