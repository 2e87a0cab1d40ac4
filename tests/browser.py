"""Headless Chromium, driven over the DevTools protocol's pipe (file descriptors 3 and 4): no port, no driver, no other
package.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser; None where there is none."""

_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
_PATIENCE_S = 120  # against a machine that hangs, not a measure of speed


class Browser:
    """Use as a context manager. `open` loads a page; the other methods are about the page that is open."""

    def __init__(self, profile: Path):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]  # clear of 3 and 4
        # Only a shell puts pipes under given numbers without running Python in the forked process.
        redirected = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'
        command = ["bash", "-c", redirected, "bash", PROGRAM, *_FLAGS, f"--user-data-dir={profile}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=ends, **quiet)
        for end in (*ends, to_browser, from_browser):
            os.close(end)
        self._received, self._number, self._session = b"", 0, None
        self._events: list[dict] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setScrollbarsHidden", hidden=True)  # their width is the system's

    def open(self, page: Path, width: int, scheme: str) -> None:
        """Loads a file in a window of this width, with `scheme` "light" or "dark", and waits until it is there."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._events.clear()
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._events))
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")

    def run(self, script: str):
        """The value of a JavaScript expression in the page; a promise is waited for."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def move_pointer(self, x: float, y: float) -> None:
        """Moves the mouse to a point of the window."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def faults(self) -> list[dict]:
        """Errors that were thrown, what was written to the console, and what the browser refused to do."""
        self.run("0")  # everything before this has been received
        told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self._events if event["method"] in told]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        for end in (self._read, self._write):
            os.close(end)

    def _call(self, method: str, **parameters) -> dict:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        answer: list[dict] = []
        self._until(lambda: bool(answer), number, answer)
        assert "error" not in answer[0], f"{method}: {answer[0]['error']}"
        return answer[0]["result"]

    def _until(self, is_done, number: int | None = None, answer: list[dict] | None = None) -> None:
        """Receives messages; the one that answers call `number` goes into `answer`."""
        deadline = time.monotonic() + _PATIENCE_S
        while not is_done():
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser said nothing for {_PATIENCE_S} s"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser ended"
            *messages, self._received = (self._received + data).split(b"\0")
            for message in map(json.loads, messages):
                if "method" in message:
                    self._events.append(message)
                elif message["id"] == number:
                    answer.append(message)
