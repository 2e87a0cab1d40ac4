"""What is asked in a process of its own ends with an answer or a fault, whatever that process does."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from openrlhf_prm.diagnosis import child


@pytest.fixture
def asks(monkeypatch, tmp_path):
    """`ask(code)`: the answer of a topic that is this function's body, in a real child. Its time begins to run when the
    file `until` is there.
    """

    def ask(code: str, limit_s: float = 600.0, until: Path | None = None):
        file = tmp_path / "topic.py"
        file.write_text(
            "import sys\nfrom openrlhf_prm.diagnosis import child\n"
            f"def topic(value):\n    {code}\n"
            "child.TOPICS['probe'] = topic\nchild.main(sys.argv[1:])\n"
        )

        class Child(subprocess.Popen):
            def __init__(self, command, **options):
                assert command[1:3] == ["-m", "openrlhf_prm.diagnosis.child"]
                super().__init__([sys.executable, str(file), *command[3:]], **options)

            def wait(self, timeout=None):
                while until is not None and not until.is_file():
                    time.sleep(0.01)
                return super().wait(timeout)

        monkeypatch.setattr(subprocess, "Popen", Child)
        return child.ask("probe", limit_s, {"a": 1})

    return ask


def test_an_answer(asks):
    assert asks("return [value, 2]") == ([{"a": 1}, 2], "")


def test_what_it_raises_is_the_fault(asks):
    assert asks("raise OSError('libcudart.so.13')") == (None, "OSError: libcudart.so.13")


def test_a_crash_is_the_fault_with_its_last_words(asks):
    answer, fault = asks("import os; print('Fatal: no driver', flush=True); os._exit(3)")
    assert answer is None and fault == "its process ended with 3: Fatal: no driver"


def test_what_hangs_is_ended_with_what_it_started(asks, tmp_path):
    """The process that it started ignores SIGTERM and holds the child's output open."""
    note = tmp_path / "pid"
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(note)!r} + '.new', 'w').write(str(os.getpid())); os.rename({str(note)!r} + '.new', {str(note)!r}); "
        "time.sleep(3600)"
    )
    code = f"import subprocess, time; subprocess.Popen([sys.executable, '-c', {stubborn!r}]); time.sleep(3600)"
    assert asks(code, 0.1, until=note) == (None, "no answer in 0.1 s (--timeout waits longer)")
    while _alive(int(note.read_text())):  # killed, it takes a moment to go
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_unknown_name_of_a_host_is_found_by_the_real_topic(monkeypatch):
    from openrlhf_prm.diagnosis import upstream_facts

    monkeypatch.setattr(upstream_facts.openrlhf_prm.hosts, "NAMES", {"ray": ("wait", "nothing")})
    assert upstream_facts.missing_of_openrlhf_prm() == ["ray:nothing"]
