"""What a training of a PRM is asked for. Flags come from here, so nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.data.formats_in import ROW_FORMATS, RowKeys
from openrlhf_prm.options import REQUIRED, Options, build, given, option, option_fields, refuse_unread
from openrlhf_prm.prm_training.heads import PRM_HEADS, PRMHead
from vllm_prm.json_flags import json_object

# Keys and labels that only some formats look at.
_READ_BY = {
    "question_key": ("records",),
    "steps_key": ("records",),
    "label_kind": ("records",),
    "input_key": ("openrlhf", "math_shepherd"),
}


@dataclass(frozen=True, kw_only=True)
class HeadChoice(Options):
    """`--prm.*` of every head."""

    head: str = option("placeholder", "how a score is read", choices=PRM_HEADS, aliases=("--model.head",))
    add_placeholder_token: bool = option(
        False,
        "add a --prm.placeholder_token of your own to the vocabulary, and a row to the embeddings, where it lacks it",
    )
    options: str = option(
        "{}", "further options of the head's family as a JSON object, as `vllm-prm --family-options` takes them"
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """`--data.*`: which labelled solutions are learnt from, and how their rows are read."""

    dataset: str = option(
        REQUIRED, "JSONL or Parquet files (comma-separated), or data sets", kind=str, aliases=("--dataset",)
    )
    dataset_split: str = option("train", "split of data sets that have several", aliases=("--dataset_split",))
    format: str = option(
        "auto", "form of the rows; auto: what the first row looks like", choices=("auto", *ROW_FORMATS)
    )
    max_samples: int | None = option(
        None, "use the first N solutions only", kind=int, least=1, aliases=("--max_samples",)
    )
    max_len: int = option(2048, "tokens per solution; steps beyond are left out", least=1, aliases=("--max_len",))
    question_key: str = option("question", "records: key of the question")
    steps_key: str = option("steps", "records: key of the list of steps")
    input_key: str = option("input", "openrlhf, math_shepherd: key of the text", aliases=("--input_key",))
    label_kind: str = option("hard", "records: 0/1 labels, or probabilities", choices=("hard", "soft"))
    label_key: str | None = option(
        None,
        "key of the labels; left out: hard_labels or soft_labels; trl labels; openrlhf label; outcomes correct",
        kind=str,
        aliases=("--label_key",),
    )
    apply_chat_template: bool = option(False, "write the question through the chat template")
    strict: bool = option(
        False, "stop at a bad row, or one that loses labels beyond --data.max_len, instead of leaving them out"
    )
    report: Path | None = option(None, "file for every row that was left out or cut, with its line, as JSON", kind=Path)

    def keys(self, head: PRMHead) -> RowKeys:
        """Which keys of a row hold what, for that head."""
        in_text = {field.name for field in option_fields(head.Options)} & {"placeholder_token", "reward_tokens"}
        return RowKeys(
            question=self.question_key,
            steps=self.steps_key,
            label=self.label_key,
            input=self.input_key,
            outcome=head.outcome,
            soft=self.label_kind == "soft",
            **{name: getattr(head.options, name) for name in in_text},
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """`--eval.*`: labelled solutions that are held out and evaluated during training."""

    dataset: str | None = option(
        None, "like --data.dataset; evaluated during training", kind=str, aliases=("--eval_dataset",)
    )
    split: str = option("train", "split of data sets that have several", read_with="dataset", aliases=("--eval_split",))
    steps: int = option(-1, "updates between evaluations; -1: at the end of each epoch", aliases=("--eval_steps",))
    output: Path | None = option(
        None, "file for the evaluated solutions with their step scores, as JSONL", kind=Path, read_with="dataset"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps > 0 and self.dataset is None:
            raise ValueError("steps needs --eval.dataset")


@dataclass(frozen=True)
class TrainingOptions:
    """All of it. `family_options`: those of the head's family that win over the head's own. `host`: flags under
    OpenRLHF's names, nested as its classes read them (`model`, `train`, `adam`, `ckpt`, `ds`, `logger`)."""

    head: type[PRMHead]
    head_options: Options
    add_placeholder_token: bool
    family_options: dict[str, Any]
    data: DataOptions
    evaluation: EvaluationOptions
    host: SimpleNamespace


def read_options(args: SimpleNamespace) -> TrainingOptions:
    """From nested flags. Raises ValueError naming the flag that is wrong, or that nothing reads."""
    choice = build(HeadChoice, args.prm, "prm")
    head = PRM_HEADS[choice.head]
    names = [field.name for field in option_fields(head.Options)]
    known = ", ".join(f"--prm.{name}" for name in names)
    read = [*names, *(field.name for field in option_fields(HeadChoice))]
    refuse_unread(args.prm, "prm", read, f"is not read by --prm.head {head.name}, which reads {known or 'none'}")
    if choice.add_placeholder_token and not head.has_placeholder():
        raise ValueError(f"--prm.add_placeholder_token: --prm.head {head.name} has no placeholder")
    data = build(DataOptions, args.data, "data")
    _require_read_data_flags(args.data, data, head)
    evaluation = build(EvaluationOptions, args.eval, "eval")
    unread = evaluation.unread("eval")
    for name in given(EvaluationOptions, args.eval):
        if name in unread:
            raise ValueError(f"--eval.{name} needs {unread[name]}")
    return TrainingOptions(
        head=head,
        head_options=build(head.Options, args.prm, "prm"),
        add_placeholder_token=choice.add_placeholder_token,
        family_options=json_object("--prm.options", choice.options),
        data=data,
        evaluation=evaluation,
        host=SimpleNamespace(**{k: v for k, v in vars(args).items() if k not in ("prm", "data", "eval")}),
    )


def _require_read_data_flags(flags: SimpleNamespace, data: DataOptions, head: type[PRMHead]) -> None:
    if data.apply_chat_template and not head.reads_chat_template:
        raise ValueError(
            f"--data.apply_chat_template is not read by --prm.head {head.name}, which always uses the template"
        )
    for name in given(DataOptions, flags):
        if data.format not in ("auto", *_READ_BY.get(name, ROW_FORMATS)):
            raise ValueError(f"--data.{name} is not read by --data.format {data.format}")
