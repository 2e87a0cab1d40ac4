"""What a report is made from: the files of a run folder.

    result.json                {"before": {...}, "after": {...}, "stock": {...},     evaluation.summary's numbers
                                "seconds": {"stage": 12.3}, "seed": 0, "versions": {"vllm": "..."}, "command": "..."}
    before.samples.jsonl       evaluation.responses' graded responses of the policy before training
    after.samples.jsonl        ... and after it
    stock.samples.jsonl        ... and after training by stock OpenRLHF, with the outcome reward alone
    tensorboard/               event files of the training run, as the host's TensorboardLogger writes them
    tensorboard_stock/         event files of the stock run

Only `result.json` with "before" and "after" must be there. Everything else is optional, and the report says what it
lacks.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from openrlhf_prm.evaluation.responses import GradedResponse, read_samples

STAGES = ("before", "after", "stock")
EVENT_FOLDERS = {"after": "tensorboard", "stock": "tensorboard_stock"}

Series = list[tuple[int, float]]


@dataclass(frozen=True)
class RunFolder:
    """A run as read: `samples` by stage, `scalars` by stage and tag, `missing` the files that were looked for in
    vain.
    """

    name: str
    result: dict
    samples: dict[str, list[GradedResponse]] = field(default_factory=dict)
    scalars: dict[str, dict[str, Series]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def stages(self) -> list[str]:
        """The stages that were evaluated, in order."""
        return [stage for stage in STAGES if stage in self.result]


def read_run(path: Path) -> RunFolder:
    """Reads a run folder. Raises ValueError where `result.json` is missing or incomplete, or a file is malformed."""
    file = path / "result.json"
    if not file.is_file():
        raise ValueError(f"{path} is no run folder: it has no result.json")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error})") from None
    if not isinstance(result, dict):
        raise ValueError(f"{file} must hold a JSON object")
    for stage in ("before", "after"):
        if not isinstance(result.get(stage), dict):
            raise ValueError(f"{file} has no {stage!r} evaluation")
    samples, scalars, missing = {}, {}, []
    for stage in STAGES:
        samples_file = path / f"{stage}.samples.jsonl"
        if samples_file.is_file():
            samples[stage] = read_samples(samples_file)
        elif stage in result:
            missing.append(samples_file.name)
    for stage, name in EVENT_FOLDERS.items():
        scalars[stage] = read_scalars(path / name)
        if not scalars[stage] and stage in result:
            missing.append(f"{name}/")
    return RunFolder(path.resolve().name, result, samples, scalars, missing)


def read_scalars(folder: Path) -> dict[str, Series]:
    """Every scalar series below a folder as tag -> [(update, value)]; {} where there are no event files.

    The host puts each run into a subfolder named by its start; where several lie there the one written last is read.
    """
    files = sorted(folder.rglob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime)
    if not files:
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(files[-1].parent), size_guidance={SCALARS: 0})
    events.Reload()
    # A later value of the same update replaces an earlier one, as after a resumed run.
    return {
        tag: sorted({event.step: event.value for event in events.Scalars(tag)}.items())
        for tag in events.Tags()["scalars"]
    }
