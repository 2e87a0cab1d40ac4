"""Exact judges of steps, for tasks whose steps can be checked by computation."""

from collections.abc import Callable, Sequence

from openrlhf_prm.tasks import arithmetic

StepChecker = Callable[[str, Sequence[str]], list[bool]]

# name -> function from a question and the steps of a response to one verdict per step; ValueError where the text is
# not a question of the task.
STEP_CHECKERS: dict[str, StepChecker] = {"arithmetic": arithmetic.check_steps}

# name -> function from a step to its kind, for tasks that tell kinds of steps apart.
STEP_KINDS: dict[str, Callable[[str], str]] = {"arithmetic": arithmetic.habit_of}
