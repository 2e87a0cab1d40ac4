"""What a report is made from: the files of a run folder.

    result.json                {"before": {...}, "after": {...}, "stock": {...},     evaluation.summary's numbers
                                "seconds": {"stage": 12.3}, "seed": 0, "versions": {"vllm": "..."}, "command": "..."}
    before.samples.jsonl       evaluation.responses' graded responses of the policy before training
    after.samples.jsonl        ... and after it
    stock.samples.jsonl        ... and after training by stock OpenRLHF, with the outcome reward alone
    tensorboard/               event files of the training run, as the host's TensorboardLogger writes them
    tensorboard_stock/         event files of the stock run

Once the run is over, `result.json` with "before" and "after" must be there. Everything else is optional, and the
report says what it lacks. While it goes on, event files are enough, below the folder or in `tensorboard/`.
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
    vain, `logged_at` when its event files were written last, in seconds since 1970. A run without `result` goes on.
    """

    name: str
    result: dict
    samples: dict[str, list[GradedResponse]] = field(default_factory=dict)
    scalars: dict[str, dict[str, Series]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    logged_at: float = 0.0

    @property
    def stages(self) -> list[str]:
        """The stages that were evaluated, in order."""
        return [stage for stage in STAGES if stage in self.result]


def read_run(path: Path) -> RunFolder:
    """Reads a run folder. Raises ValueError where `result.json` is missing or incomplete, or a file is malformed."""
    file = path / "result.json"
    if not file.is_file():
        return _read_going_on(path)
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


def _read_going_on(path: Path) -> RunFolder:
    events = path / EVENT_FOLDERS["after"]
    events = events if events.is_dir() else path
    files = _event_files(events)
    if not files:
        raise ValueError(f"{path} is no run folder: it has neither result.json nor TensorBoard event files")
    scalars = {"after": read_scalars(events)}
    return RunFolder(path.resolve().name, {}, scalars=scalars, logged_at=files[-1].stat().st_mtime)


def _event_files(folder: Path) -> list[Path]:
    """The event files below a folder, the one written last at the end."""
    return sorted(folder.rglob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime)


def read_scalars(folder: Path) -> dict[str, Series]:
    """Every scalar series below a folder as tag -> [(update, value)]; {} where there are no event files.

    The host puts each process's events into a subfolder named by its start. The one written last counts; a run that
    was resumed begins after its first update there, and what came before is read from the older ones.
    """
    subfolders = list(dict.fromkeys(file.parent for file in reversed(_event_files(folder))))
    scalars: dict[str, dict[int, float]] = {}
    begins = float("inf")
    for subfolder in subfolders:
        series = _scalars_of(subfolder)
        for tag, values in series.items():
            earlier = {update: value for update, value in values.items() if update < begins}
            scalars[tag] = scalars.get(tag, {}) | earlier
        begins = min([begins, *(update for values in series.values() for update in values)])
    return {tag: sorted(values.items()) for tag, values in scalars.items() if values}


def _scalars_of(subfolder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(subfolder), size_guidance={SCALARS: 0})
    events.Reload()
    # A later value of the same update replaces an earlier one, as after a resumed run.
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
