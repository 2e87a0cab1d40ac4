"""What a run of labelling counts."""

from openrlhf_prm.annotation.progress import LabellingProgress
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root


def labelled(steps: int, truncated: bool) -> LabelledSolution:
    ones = [1] * steps
    return LabelledSolution(
        "", ["a"] * steps, [1.0] * steps, ones, [1.0] * steps, ones, ones, ones, True, truncated, ones
    )


def test_counts_of_all_questions():
    progress = LabellingProgress(3)
    usage = {"rollouts": 4, "rollout_tokens": 40, "solution_tokens": 9, "reused_rollouts": 2, "merged_copies": 1}
    progress.add(AnnotatedQuestion(Root(1, 2), [labelled(2, False), labelled(3, True)], usage))
    progress.add(AnnotatedQuestion(Root(1, 2), [labelled(1, True)], {"rollouts": 1}))
    progress.add(AnnotatedQuestion(Root(0, 2), [], {"solution_tokens": 5}, dropped="all_wrong"))
    summary = progress.summary()
    times = {name: summary.pop(name) for name in ("seconds", "labels_per_s")}
    assert summary == {
        **{"solutions": 3, "labels": 6, "dropped_questions": 1, "rollouts": 5, "rollout_tokens": 40},
        **{"solution_tokens": 14, "reused_rollouts": 2, "merged_copies": 1, "truncated_solutions": 2},
        **{"retried_questions": 0, "cache_hit_rate": None},
    }
    assert min(times.values()) >= 0
    progress.bar.close()


def test_nothing_labelled():
    summary = LabellingProgress(0).summary()
    assert set(summary.values()) == {0, None} and summary["labels_per_s"] == 0
