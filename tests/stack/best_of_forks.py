"""The estimator of `examples/extensions` on responses that fork: `FILE.py:BestOfForks`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.advantages.forked_tree import ForkedTree

sys.path.append(str(Path(__file__).parents[2]))
from examples.extensions.estimator import BestOfGroup


@dataclass(frozen=True, kw_only=True)
class BestOfForks(ForkedTree, BestOfGroup):
    """The sum of both parents' advantages."""

    needs: ClassVar[frozenset[EstimatorNeed]] = ForkedTree.needs | BestOfGroup.needs

    def __call__(self, batch):
        parts = zip(ForkedTree.__call__(self, batch), BestOfGroup.__call__(self, batch), strict=True)
        return [forked + best for forked, best in parts]
