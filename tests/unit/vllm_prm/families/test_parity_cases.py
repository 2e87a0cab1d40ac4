"""Every family is compared with transformers somewhere in `tests/stack`."""

import re
from pathlib import Path

from tiny_checkpoints import CASES, ELSEWHERE, EXAMPLE

from vllm_prm.families import PRM_FAMILIES

STACK = Path(__file__).parents[3] / "stack"


def test_every_family_has_a_parity_case():
    assert {case.family for case in CASES.values()} | set(ELSEWHERE) == {*PRM_FAMILIES, EXAMPLE}


def test_the_tests_named_elsewhere_exist():
    for place in ELSEWHERE.values():
        file, test = place.split("::")
        assert re.search(rf"^def {test}\(", (STACK / file).read_text(), re.MULTILINE), place
