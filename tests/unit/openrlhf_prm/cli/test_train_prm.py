"""The flags of `train_prm`: older names, heads with theirs, and mistakes that end in one line."""

import subprocess
import sys

import pytest

from openrlhf_prm.cli import launched, train_prm
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.options import option_fields
from openrlhf_prm.prm_training.heads import PRM_HEADS


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train.max_epochs", "0"], "--train.max_epochs must be at least 1"),
        (["--train.batch_size", "12", "--train.micro_batch_size", "8"], "batch_size 12 must be a multiple of 8"),
        (["--train.micro_batch_size", "0"], "--train.micro_batch_size must be at least 1"),
        (["--ds.zero_stage", "4"], "invalid choice: 4"),
        (["--adam.lr", "0"], "--adam.lr must be above 0"),
        (["--model.model_name_or_path", "./nowhere"], "--model.model_name_or_path: there is no folder ./nowhere"),
        (["--ckpt.output_dir", "."], "--ckpt.output_dir . already exists"),
        (["--prm.head", "value"], "invalid choice: 'value'"),
        (["--prm.head", "value_head", "--prm.beta", "1"], "--prm.beta is not read by --prm.head value_head, which"),
        (["--prm.head", "implicit", "--prm.beta", "0"], "--prm.beta must be above 0"),
        (["--prm.head", "implicit", "--prm.add_placeholder_token"], "--prm.head implicit has no placeholder"),
        (["--prm.head", "implicit", "--prm.reference", "./nowhere"], "--prm.reference: there is no folder"),
        (["--prm.head", "qwen_prm", "--data.apply_chat_template"], "is not read by --prm.head qwen_prm"),
        (["--prm.options", "[]"], "--prm.options must be a JSON object"),
        (["--ckpt.best_metric_key", "auc"], "--ckpt.best_metric_key needs --eval.dataset"),
        (["--eval.output", "x.jsonl"], "--eval.output needs --eval.dataset"),
        (["--eval.split", "test"], "--eval.split needs --eval.dataset"),
        (["--eval.steps", "5"], "--eval.steps needs --eval.dataset"),
        (["--data.max_len", "0"], "--data.max_len must be at least 1"),
        (["--data.format", "trl", "--data.steps_key", "s"], "--data.steps_key is not read by --data.format trl"),
        (["--data.format", "records", "--data.input_key", "s"], "--data.input_key is not read by --data.format rec"),
        (["--ckpt.best_metric_key", "pass1"], "invalid choice: 'pass1'"),
        (["--ds.lora.dropout", "1"], "--ds.lora.dropout must be in [0, 1)"),
        (["--data.label_kind", "vague"], "invalid choice: 'vague'"),
    ],
)
def test_bad_flags_end_with_one_line(capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        train_prm.main(["--model.model_name_or_path", "org/policy", "--data.dataset", "x.jsonl", *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def parsed(folder, *flags: str):
    """The options of a command line; the model "policy" is a folder that looks like a checkpoint."""
    (folder / "policy").mkdir(exist_ok=True)
    (folder / "policy" / "config.json").write_text("{}")
    flags = tuple(str(folder / flag) if flag == "policy" else flag for flag in flags)
    args = train_prm.build_parser().parse_args([*flags, "--ckpt.output_dir", str(folder / "new")])
    return train_prm.check(nested(args))


def test_flags_of_older_openrlhf_are_understood(tmp_path):
    """Those of its last example script for `train_prm`, and the data flags."""
    old = "--pretrain policy --dataset x.jsonl --bf16 --flash_attn --max_epochs 1 --logging_steps 1 --eval_steps -1"
    old += " --zero_stage 3 --learning_rate 1e-6 --train_batch_size 256 --micro_train_batch_size 8 --max_len 8192"
    old += " --save_steps 500 --save_path ckpt --load_checkpoint --gradient_checkpointing --packing_samples"
    old += " --input_key input --label_key value --placeholder_token ки --reward_tokens + - --lora_rank 8"
    options = parsed(tmp_path, *old.split())
    new = "--model.model_name_or_path policy --data.dataset x.jsonl --ds.attn_implementation flash_attention_2"
    new += " --ds.param_dtype bf16"
    new += " --ds.zero_stage 3 --train.batch_size 256 --data.max_len 8192 --ckpt.save_steps 500 --ckpt.load_enable"
    new += " --model.gradient_checkpointing_enable --ds.packing_samples --data.label_key value"
    new += " --prm.placeholder_token ки --ds.lora.rank 8 --adam.lr 1e-6 --train.micro_batch_size 8"
    assert options == parsed(tmp_path, *new.split())
    assert options.head_options.placeholder_token == "ки" and options.data.max_len == 8192


def test_a_head_has_the_defaults_of_its_class(tmp_path):
    model = ("--model.model_name_or_path", "policy", "--data.dataset", "x.jsonl")
    head = parsed(tmp_path, *model).head_options
    assert (head.placeholder_token, head.reward_tokens, head.step_separator) == ("<step>", ("+", "-"), "\n")
    head = parsed(tmp_path, *model, "--model.head", "qwen_prm").head_options
    assert vars(head) == {"placeholder_token": "<extra_0>"}
    assert parsed(tmp_path, *model, "--prm.head", "implicit").head_options.beta == 0.05


def test_every_flag_says_what_it_means():
    actions = train_prm.build_parser()._actions
    assert len(actions) > 50
    assert [action.option_strings for action in actions if not action.help or len(action.help) < 10] == []


@pytest.mark.parametrize("name", PRM_HEADS)
def test_every_option_of_every_head_is_a_flag_that_it_reads(tmp_path, name):
    """A flag of the head is an error for every head that does not have it."""
    values = {str: "x", float: "0.5", tuple: ("x", "y")}
    for field in option_fields(PRM_HEADS[name].Options):
        value = values[field.metadata["kind"]]
        flag = [f"--prm.{field.name}", *([value] if isinstance(value, str) else value)]
        model = ["--model.model_name_or_path", "policy", "--data.dataset", "x.jsonl"]
        for other, head in PRM_HEADS.items():
            if field.name in {entry.name for entry in option_fields(head.Options)}:
                continue
            with pytest.raises(ValueError, match=f"--prm.{field.name} is not read by --prm.head {other}"):
                parsed(tmp_path, *model, "--prm.head", other, *flag)
        if field.name != "reference":  # which is looked up
            options = parsed(tmp_path, *model, "--prm.head", name, *flag)
            assert getattr(options.head_options, field.name) == type(field.default)(value)


def launch(*flags: str) -> subprocess.CompletedProcess:
    """Two processes under torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    model = ["--model.model_name_or_path", "./nowhere", "--data.dataset", "x.jsonl"]
    command = [*torchrun, "-m", "openrlhf_prm.cli.train_prm", *model, *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_processes_of_a_launcher_say_an_error_once():
    done = launch("--adam.lr", "-1")
    assert done.returncode and done.stderr.count("--adam.lr must be above 0") == 1, done.stderr
    assert "exitcode  : 2" in done.stderr


def test_a_process_that_nobody_ends_says_its_error_itself(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    waited: list[float] = []
    monkeypatch.setattr(launched.time, "sleep", waited.append)
    with pytest.raises(SystemExit) as end:
        train_prm.build_parser().error("only here")
    assert end.value.code == 2 and "only here" in capsys.readouterr().err and waited == [launched.PATIENCE_S]


def test_a_process_that_is_ended_meanwhile_says_nothing(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")

    def ended(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launched.time, "sleep", ended)
    with pytest.raises(SystemExit) as end:
        train_prm.build_parser().error("there too")
    assert end.value.code == 2 and capsys.readouterr().err == ""
