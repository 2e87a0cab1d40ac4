"""What may crash or hang is looked at in a process of its own: `python -m openrlhf_prm.diagnosis.child TOPIC FILE`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from openrlhf_prm.diagnosis import device_facts, node_facts, upstream_facts

TOPICS = {
    "device": device_facts.collect,
    "names of vllm_prm": upstream_facts.missing_of_vllm_prm,
    "names of openrlhf_prm": upstream_facts.missing_of_openrlhf_prm,
    "nodes": node_facts.collect,
}
"""Topic -> the function that answers it with something JSON can hold."""


def ask(topic: str, limit_s: float, *arguments) -> tuple[object, str]:
    """The answer to a topic, and no fault; or None and why there is none: it raised, died, or took `limit_s`.

    It and everything it started are ended then. What it wrote goes to files, because a process that it left behind
    would keep a pipe open.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, said = Path(folder, "answer.json"), Path(folder, "said")
        command = [
            sys.executable,
            "-m",
            "openrlhf_prm.diagnosis.child",
            topic,
            str(answer),
            *map(json.dumps, arguments),
        ]
        with said.open("w") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            child.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None, f"no answer in {limit_s:g} s (--timeout waits longer)"
        finally:
            _end(child)
        if answer.is_file():
            told = json.loads(answer.read_text())
            return told["answer"], told["fault"]
        last = said.read_text(errors="replace").strip().splitlines()[-1:]
        return None, f"its process ended with {child.returncode}: {' '.join(last)}"


def _end(child: subprocess.Popen) -> None:
    """The child's session, politely first: Ray's own processes go when it does."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, ending)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)


def main(arguments: list[str]) -> None:
    """Writes `{"answer": ..., "fault": ""}`, or as fault what was raised."""
    topic, file, *rest = arguments
    try:
        told = {"answer": TOPICS[topic](*map(json.loads, rest)), "fault": ""}
    except Exception as error:  # whatever a broken installation raises is the finding
        told = {"answer": None, "fault": f"{type(error).__name__}: {error}"}
    Path(file).write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
