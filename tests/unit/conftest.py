"""What holds for every unit test."""

import pytest

from openrlhf_prm.answers import comparison


@pytest.fixture(autouse=True)
def patient_answers(monkeypatch):
    """A verdict on an answer is not decided by how busy the machine is."""
    monkeypatch.setattr(comparison._FORMULAS, "limit_s", 3600.0)
