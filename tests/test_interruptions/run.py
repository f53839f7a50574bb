"""Runs a server whose workers interrupt themselves, and collects what became of them."""

import atexit
import collections
import contextlib
import functools
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Counter, Dict, List, NamedTuple, Sequence

import environments
import pytest
from environments import Environment, Workers

SERVED = Path(__file__).with_name("served")
DEADLINE = 150.0  # seconds, for anything that is waited for: a storm on a busy machine
WORKERS = {"asyncio": "worker.UvicornH11Worker", "uvloop": "worker.UvicornWorker"}

PHASES = "boot loading serving closing"  # of a worker's life

# What runs between fork and exit wherever the signal matters; the rest is as good as any one place.
SCOPE = (
    r"/(asyncio|concurrent|gunicorn|logging)/"
    r"|/(application|contextlib|selectors|signal|threading|weakref)[.]py:"
    r"|/uvicorn/(_compat|main|server|workers)[.]py:"
    r"|/uvicorn_worker/_workers[.]py:"
    r"|genericpath|posixpath"
)

# asyncio's close() leaves SIGQUIT's wakeup pipe installed for some bytecodes after closing it.
WAKEUP = re.compile(
    r"Exception ignored (?:when|while) trying to write to the signal wakeup fd:\n"
    r"Traceback .*\n(?: .*\n|\n)*(?:BrokenPipeError|OSError): .*\n"
)


@functools.lru_cache(maxsize=None)
def environment(workers: Workers, patched: bool = True) -> Environment:
    """One for a release on a Python of its uvicorn's time, or the nearest at hand that it installs on."""
    minor = int(workers.uvicorn.split(".")[1])
    era = 8 if minor < 20 else 11 if minor < 33 else 13
    # Up to 0.16.0 uvicorn takes it that get_event_loop() makes a loop, and newer uvloops do not.
    requirements = (*workers.packages(), *(["uvloop<0.18"] if minor < 17 else []))
    for python in sorted(environments.pythons(), key=lambda version: abs(version[1] - era)):
        if python < (3, 7):
            continue  # No opcode events
        try:
            pristine = environments.cached(python, *requirements)
        except environments.NotInstallable:
            continue
        return _patched(pristine, workers) if patched else pristine
    pytest.skip(f"{workers} installs on no Python at hand")


def _patched(pristine: Environment, workers: Workers) -> Environment:
    home = tempfile.mkdtemp(prefix="patched-")
    atexit.register(shutil.rmtree, home)
    return environments.patched_copy(pristine, Path(home) / "venv", workers.distribution, workers.release)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Outcome(NamedTuple):
    reports: List[Dict[str, Any]]
    answered: List[str]
    unanswered: List[str]
    lines: "Counter[str]"
    errors: str  # What is on stderr, and in the error log other than informational lines
    boundaries: List[str]
    statuses: List[int]

    def complaints(self) -> List[str]:
        """Everything that the signals broke, apart from the exit statuses."""
        expected = [line for path in self.answered for line in (path, "app " + path)]
        for report in self.reports:
            if "checked" in report:
                pid = report["checked"]
                expected += [f"{pid} Booting worker with pid: {pid}", f"{pid} Started server process [{pid}]"]
                expected += [f"{pid} Finished server process [{pid}]"]
            if "exiting" in report:
                pid = report["exiting"]
                expected += [f"{pid} Worker exiting (pid: {pid})"]
        # In a run of thousands of workers process ids come again
        workers = collections.Counter(str(report["exited"]) for report in self.reports if "exited" in report)
        found = [f"not answered: {path}" for path in self.unanswered]
        found += [f"lost: {line}" for line, n in collections.Counter(expected).items() if self.lines[line] < n]
        found += [
            f"logged {count} times: {line}"
            for line, count in self.lines.items()
            if count > max(1, workers[line.split()[0]])
        ]
        found += [f"not reopened: {report}" for report in self.reports if report.get("stale")]
        return found + [self.errors] if self.errors else found


class Run:
    """
    One gunicorn with one worker at a time, in a directory of its own.

    loop: one of WORKERS, or a worker class.
    shots: where signals are sent.
        "storm": at every boundary, once
        "each": the same, but not before the signal that came last has been honoured
        "one": as each, but one in each request, boot and exit
        "nested": one in each call, and a second one at a boundary of the handler, another one each time
        "burst": one in each call, and ten thousand from another process while it is handled
    phases: those of a worker's life that signals are sent in.
    scope: a pattern for the functions that are interrupted, as FILE:NAME.
    options: more of gunicorn's.
    patience: seconds, for anything that is waited for.
    """

    def __init__(
        self,
        home: Path,
        target: Environment,
        loop: str,
        shots: str,
        requests: int,
        phases: str = PHASES,
        scope: str = SCOPE,
        options: Sequence[str] = (),
        patience: float = DEADLINE,
    ) -> None:
        self.home = home
        self.patience = patience
        self.requests = requests
        self.answered: List[str] = []
        self.unanswered: List[str] = []
        self._reports: List[Dict[str, Any]] = []
        self._read = 0
        self._lines: Counter[str] = collections.Counter()
        self._rest = ""
        command = [str(target.python), "-m", "gunicorn", "-c", "python:interrupted", "-k", WORKERS.get(loop, loop)]
        command += ["--workers", "1", "--max-requests", str(requests), "--bind", "unix:socket"]
        # Gunicorn is to be patient too: it would kill a worker, and keep its status to itself
        command += ["--timeout", "120", "--graceful-timeout", "120", *options, "application:app"]
        variables = {**os.environ, "PYTHONPATH": str(SERVED), "PYTHONDONTWRITEBYTECODE": "1"}
        variables.update(USR1_SHOTS=shots, USR1_PHASES=phases, USR1_SCOPE=scope)
        with open(home / "stderr", "w") as stderr:
            self.server = subprocess.Popen(
                command, cwd=home, env=variables, stdout=stderr, stderr=stderr, start_new_session=True
            )

    def __enter__(self) -> "Run":
        try:
            self.wait(self._listening, "the socket")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listening(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.home / "socket"))
            return True
        return False

    def __exit__(self, *exception: object) -> None:
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait(DEADLINE)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert self.server.poll() is None, f"the server ended: {(self.home / 'stderr').read_text()}"
            assert time.monotonic() < deadline, f"no sign of {what} within {self.patience} s"
            time.sleep(0.01)

    def reports(self) -> List[Dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError), open(self.home / "reports") as file:
            file.seek(self._read)
            self._reports += [json.loads(line) for line in file.readlines()]
            self._read = file.tell()
        return self._reports

    def boundaries(self) -> List[str]:
        """Where signals were sent, in that order."""
        done = self.home / "done"
        return done.read_text().splitlines() if done.exists() else []

    def statuses(self) -> List[int]:
        """What wait(2) said of each worker, in the order of their ends."""
        return [report["status"] for report in self.reports() if "exited" in report]

    def exits(self) -> int:
        return len(self.statuses())

    def life(self) -> None:
        """Serve one worker's requests, up to the first that fails. The last one ends it: wait for that."""
        exits = self.exits()
        connection = UnixConnection(self.home / "socket", self.patience)
        names = (*range(self.requests - 1), "check")
        served = all(self._get(connection, exits, name) for name in names)
        connection.close()
        if served:
            self.wait(lambda: self.exits() > exits, "the worker's exit")
            ended = [report["exited"] for report in self.reports() if "exited" in report][-1]
            self._collect(f"*.log.{ended}.*")  # Or they would be a million in the end

    def _get(self, connection: UnixConnection, exits: int, name: object) -> bool:
        path = f"/{exits}-{name}"
        try:
            connection.request("GET", path)
            while not select.select([connection.sock], [], [], 0.1)[0]:
                if self.exits() > exits:
                    raise ConnectionError("the worker has ended")
            answer = connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            answer = repr(error).encode()
        if answer != b"ok":
            self.unanswered.append(f"{path}: {answer!r}")
            return False
        self.answered.append(path)
        return True

    def stop(self) -> Outcome:
        """Serve one request more, then have the arbiter end the worker."""
        connection = UnixConnection(self.home / "socket", self.patience)
        self._get(connection, self.exits(), "check")
        connection.close()
        self.server.terminate()
        try:
            self.server.wait(self.patience)
        except subprocess.TimeoutExpired:
            raise AssertionError("the server does not end") from None
        self._collect("*.log*")
        errors = WAKEUP.sub("", (self.home / "stderr").read_text()) + self._rest
        return Outcome(
            self.reports(), self.answered, self.unanswered, self._lines, errors, self.boundaries(), self.statuses()
        )

    def _collect(self, pattern: str) -> None:
        """Count the lines of files that nobody writes to any more."""
        for path in self.home.glob(pattern):
            text = path.read_text()
            path.unlink()
            self._lines.update(re.findall(r'(?<="GET )/\S+|^app /\S+$', text, re.MULTILINE))
            for line in text.splitlines() if path.name.startswith("error.log") else ():
                match = re.fullmatch(r"\[.*\] \[(\d+)\] \[(?:INFO\] |WARNING\] (?=Maximum request limit))(.*)", line)
                if match:
                    self._lines[f"{match[1]} {match[2]}"] += 1
                else:
                    self._rest += line + "\n"
