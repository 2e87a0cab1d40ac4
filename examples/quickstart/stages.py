"""Runs a recipe's stages one after the other: each is a command of the project, with its log and its time.

`logs/stages.jsonl`, a `DurableFile`, says what was begun and what was done. A stage that is done is not run again, as
long as its command is the same, its outputs are there, and the stage before it has not run again since. What a running
stage prints goes to its log; the terminal shows one line with how far it is and how long the whole recipe will still
take.
"""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vllm_prm.durable_file import DurableFile, in_order
from vllm_prm.interrupts import end_as_after_ctrl_c

_BARS = re.compile(rb"(\d+)/(\d+)")


@dataclass(frozen=True)
class Stage:
    """One command. `outputs` must exist afterwards; `expected_s` is how long it takes on 2 quiet cores, for the time
    left; `fresh` are folders of a half-done earlier try to remove before it starts. `always`: run it in any case.

    `progress`: a regular expression with a group for the number of units done, and `units` for how many there are;
    without it the last `done/all` of a progress bar in the log counts.
    """

    name: str
    title: str
    command: list[str]
    outputs: list[Path]
    expected_s: float
    progress: str | None = None
    units: int = 0
    fresh: tuple[Path, ...] = ()
    always: bool = False


class StageFailed(RuntimeError):
    """A stage's command ended with an error, and the message holds the end of its log; or another run is at work in the
    folder.
    """


def made_folder(path: str | Path) -> Path:
    """The folder of a run, made where it is not there; ends the program in one line where it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--output {folder}: {error.strerror}; name a folder", file=sys.stderr)
        sys.exit(2)
    return folder


@contextmanager
def exit_in_one_line():
    """Around `run_stages` in a program: a failed stage, Ctrl-C and a closed terminal end it with what to know, without
    a traceback.
    """
    end_as_after_ctrl_c()
    try:
        yield
    except StageFailed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on where this one stopped")


def run_stages(stages: list[Stage], folder: Path) -> dict[str, float]:
    """Runs what is not done yet and returns the seconds each stage took when it ran.

    Raises StageFailed, and passes Ctrl-C on after the stage's process has ended; done stages stay done either way.
    """
    seconds, before = {}, None
    try:
        history = DurableFile(folder / "logs" / "stages.jsonl", {}, in_order)
    except ValueError as error:
        raise StageFailed(str(error)) from None
    with history:
        last = {row["stage"]: {**row, "number": number} for number, row in enumerate(history.rows())}
        for index, stage in enumerate(stages):
            label, row = f"[{index + 1}/{len(stages)}] {stage.title}", last.get(stage.name)
            if row is None or not _is_done(stage, row, before):
                rest_s = sum(later.expected_s for later in stages[index + 1 :])
                row = _run_from_scratch(stage, label, folder / "logs", rest_s, history, before)
            else:
                print(f"{label}: done before, in {row['seconds']:.0f} s", flush=True)
            seconds[stage.name], before = row["seconds"], row["number"]
    return seconds


def _is_done(stage: Stage, row: dict, before: int | None) -> bool:
    """`row`: what was written last about the stage; `before`: the number of the row of the stage before it."""
    facts = {"command": stage.command, "after": before}
    same = "seconds" in row and all(row[name] == fact for name, fact in facts.items())
    return same and not stage.always and all(path.exists() for path in stage.outputs)


def _run_from_scratch(
    stage: Stage, label: str, logs: Path, rest_s: float, history: DurableFile, before: int | None
) -> dict:
    """Runs a stage; its row in the history, with its number."""
    history.append([{"stage": stage.name}])  # begun: what it is about to replace does not count any more
    for path in stage.fresh:
        shutil.rmtree(path, ignore_errors=True)
    took = _run(stage, label, logs / f"{stage.name}.log", rest_s)
    row = {"stage": stage.name, "command": stage.command, "after": before, "seconds": round(took, 1)}
    number = len(history.finished)
    history.append([row])
    return {**row, "number": number}


def _run(stage: Stage, label: str, log: Path, rest_s: float) -> float:
    started = time.monotonic()
    _line(f"{label} ...", end=not sys.stdout.isatty())
    with log.open("wb") as sink:
        sink.write(f"$ {shlex.join(stage.command)}\n".encode())
        sink.flush()
        process = subprocess.Popen(stage.command, stdout=sink, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(1.0)
                _show(label, _share_done(stage, log), time.monotonic() - started, stage.expected_s, rest_s)
        except KeyboardInterrupt:
            _end(process)
            raise
    took = time.monotonic() - started
    missing = [str(path) for path in stage.outputs if not path.exists()]
    if process.returncode or missing:
        tail = log.read_bytes()[-3000:].decode(errors="replace")
        reason = f"exit code {process.returncode}" if process.returncode else f"no {', '.join(missing)}"
        raise StageFailed(f"\n{tail}\n{stage.title} failed ({reason}); the whole log is in {log}")
    _line(f"{label}: {took:.0f} s", end=True)
    return took


def _end(process: subprocess.Popen) -> None:
    """Ends an interrupted stage. From a terminal it got the signal already, as a member of the process group."""
    for end, patience_s in ((lambda: None, 10), (lambda: process.send_signal(signal.SIGINT), 20), (process.kill, 10)):
        end()
        try:
            process.wait(timeout=patience_s)
            return
        except subprocess.TimeoutExpired:
            continue


def _share_done(stage: Stage, log: Path) -> float | None:
    content = log.read_bytes()[-20_000:] if stage.progress is None else log.read_bytes()
    if stage.progress is not None:
        units_done = re.findall(stage.progress.encode(), content)
        return int(units_done[-1]) / stage.units if units_done else None
    bars = [(int(done), int(every)) for done, every in _BARS.findall(content) if int(every) > 1]
    return min(1.0, bars[-1][0] / bars[-1][1]) if bars else None


def _show(label: str, share: float | None, elapsed: float, expected_s: float, rest_s: float) -> None:
    # Start-up takes most of a short stage: its expected time is the first estimate, later its own pace counts.
    of_stage_s = expected_s - elapsed
    if share and share > 0.3:
        of_stage_s = elapsed / share - elapsed
    left_s = max(of_stage_s, 1.0) + rest_s
    done = "starting" if share is None else f"{share:4.0%}"
    _line(f"{label}: {done}, {elapsed:.0f} s, about {left_s / 60:.0f} min left in all")


def _line(text: str, end: bool = False) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if end else "", flush=True)
    elif end:
        print(text, flush=True)
