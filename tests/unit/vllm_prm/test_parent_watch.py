"""A process that ends with the one that started it, though a thread of it hangs."""

import subprocess
import sys

CHILD = """
import threading
from vllm_prm.parent_watch import end_with_parent
end_with_parent()
threading.Thread(target=threading.Event().wait).start()
print("watches", flush=True)
"""

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
sys.stdout.write(child.stdout.readline().decode())
"""

LIMIT_S = 300


def test_a_process_whose_thread_hangs_ends_with_its_parent():
    """The child holds its standard error, this pipe, until it is gone."""
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout == "watches\n" and not done.stderr
