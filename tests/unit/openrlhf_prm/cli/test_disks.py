"""A command whose disk is full says so in one line."""

import pytest

from openrlhf_prm.cli.parser import told_of_disks
from vllm_prm.disk import ONCE_MORE

FULL = "No space left on device"


def test_a_command_says_so_in_one_line_and_other_errors_are_as_ever(capsys):
    @told_of_disks("annotate")
    def main(argv):
        raise OSError(*argv)

    assert main([28, FULL, "labels.jsonl"]) == 1
    told = capsys.readouterr().err
    assert told.endswith(f"error: labels.jsonl cannot be written: {FULL}; {ONCE_MORE}\n")
    assert told.count("\n") == 1
    with pytest.raises(FileNotFoundError):
        main([2, "No such file", "x"])


def test_so_do_libraries_whose_errors_are_their_own(capsys):
    def main(argv):
        raise RuntimeError(*argv)

    assert told_of_disks("train_prm")(main)([f"I/O error: {FULL} (os error 28)"]) == 1
    assert capsys.readouterr().err.endswith(f"error: a file cannot be written: {FULL}; {ONCE_MORE}\n")
    with pytest.raises(RuntimeError, match="of something else"):
        told_of_disks("train_prm")(main)(["of something else"])
