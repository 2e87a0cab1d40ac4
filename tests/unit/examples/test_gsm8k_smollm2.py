"""The stages of the real-text example: their flags are those of the commands, and missing data is named."""

import importlib

import pytest

from examples.gsm8k_smollm2.run import conversion_stages, evaluation_stage, main, training_stages


@pytest.fixture
def data(tmp_path):
    for name in ("train", "test", "steps"):
        (tmp_path / f"{name}.jsonl").touch()
    return tmp_path


def test_every_stage_is_a_command_with_flags_that_it_has(data):
    stages = [*conversion_stages(data, data, data), *training_stages(data, 0), evaluation_stage(data, 0)]
    assert len({stage.name for stage in stages}) == len(stages) == 7
    for stage in stages:
        _, _, module, *flags = stage.command
        if stage.name != "ppo":  # the host's parser knows most of its flags
            importlib.import_module(module).build_parser().parse_args(flags)


def test_missing_data_is_one_line(data, capsys):
    (data / "test.jsonl").unlink()
    with pytest.raises(SystemExit) as end:
        main(["--gsm8k", str(data), "--prmbench", str(data)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and "--gsm8k: there is no" in error
