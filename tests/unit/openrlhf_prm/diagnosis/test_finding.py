"""The table, the line for each use, and the exit code."""

from openrlhf_prm.diagnosis.finding import Finding, exit_code, summary, table

FINDINGS = [
    Finding("ray", "2.55.0"),
    Finding("disk", "3 GiB free", (), "checkpoints may not fit"),
    Finding("nvcc", "missing\n  at all", ("train-prm", "train-ppo"), "install it"),
    Finding("nvcc", "of another CUDA", ("train-ppo",), "change it"),
]


def test_the_table_has_a_line_a_finding_and_what_to_do_under_it():
    assert table(FINDINGS).splitlines() == [
        "ok       ray   2.55.0",
        "warning  disk  3 GiB free",
        "               -> checkpoints may not fit",
        "FAULT    nvcc  missing at all",
        "               -> install it",
        "FAULT    nvcc  of another CUDA",
        "               -> change it",
    ]


def test_the_exit_code_is_a_sum_over_the_uses_that_are_asked_for():
    assert exit_code(FINDINGS[:2]) == 0
    assert exit_code(FINDINGS) == 8 + 16
    assert exit_code(FINDINGS, ["serve", "train-prm"]) == 8
    assert exit_code(FINDINGS, ["serve"]) == 0
    assert exit_code([Finding("PyTorch", "none", ("serve", "train-prm", "train-ppo"))]) == 4 + 8 + 16


def test_each_use_names_the_checks_against_it_once():
    assert summary(FINDINGS, ["serve", "train-ppo"]).splitlines() == [
        "serve      can run",
        "train-ppo  cannot run: nvcc",
    ]
