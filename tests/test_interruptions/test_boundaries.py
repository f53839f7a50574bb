"""SIGUSR1 at every bytecode boundary: of a worker's life, of a log write, and of the signal handler itself."""

import contextlib
import re
import signal
from collections import Counter
from pathlib import Path
from typing import List, Sequence

import environments
import pytest
from bench.subjects import ALONE, PATCHED, PRISTINE, THEIRS
from environments import UVICORN, Environment, Workers
from packaging.version import Version
from properties import wait
from properties.clients import Client, new_request
from properties.environment import ASGI, GTHREAD, SYNC, is_own
from properties.expect import expect
from properties.server import Server

SERVED = Path(__file__).with_name("served")
H11 = "uvicorn.workers.UvicornH11Worker"
SWEEPS = ("in_a_log_write", "beside_a_thread", "in_the_handler", "in_a_look", "burst", "exception", "recursion", "fork")
FIRST_LINE = "in_a_first_line"  # Uvicorn's patch alone has nobody to look after it

SUBJECTS = {
    "asyncio": ALONE._replace(worker_class=H11),
    "uvloop": ALONE,
    "both": PATCHED,
    "sync": PATCHED._replace(worker_class=SYNC, patches=(THEIRS,)),
    "gthread": PATCHED._replace(worker_class=GTHREAD, patches=(THEIRS,)),
    "asgi": PATCHED._replace(worker_class=ASGI, patches=(THEIRS,)),
}


def subjects(*by_default: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("subject", environments.parameters(SUBJECTS, by_default))


def options(subject: str) -> List[str]:
    """At boot uvicorn's patch leaves captured output to the next signal."""
    return ["--capture-output"] * (THEIRS in SUBJECTS[subject].patches)


def published(workers: Workers) -> Environment:
    """On a Python of its uvicorn's time, or the nearest at hand that it installs on."""
    minor = int(workers.uvicorn.split(".")[1])
    era = 8 if minor < 20 else 11 if minor < 33 else 13
    # Up to 0.16.0 uvicorn takes it that get_event_loop() makes a loop, and newer uvloops do not.
    requirements = (*workers.packages(), *(["uvloop<0.18"] if minor < 17 else []))
    with_opcode_events = [python for python in environments.pythons() if python >= (3, 7)]
    for python in sorted(with_opcode_events, key=lambda version: abs(version[1] - era)):
        with contextlib.suppress(environments.NotInstallable):
            return environments.cached(python, *requirements)
    pytest.skip(f"{workers} installs on no Python at hand")


# A worker's life: served/interrupted.py

REQUESTS = 4  # Of a worker

# asyncio's close() leaves SIGQUIT's wakeup pipe installed for some bytecodes after closing it.
WAKEUP = re.compile(
    r"Exception ignored (?:when|while) trying to write to the signal wakeup fd:\n"
    r"Traceback .*\n(?: .*\n|\n)*(?:BrokenPipeError|OSError): .*\n"
)
TIME = re.compile(r"^\[\d{4}-[^]]*\] ", re.MULTILINE)
INFORMATION = re.compile(r"\[\d+\] \[(?:INFO\]|WARNING\] Maximum request limit)")


class Life:
    """A server with one worker after the other, each interrupting itself where none before it has."""

    def __init__(
        self, target: Environment, worker_class: str, *options: str, patience: float, **variables: str
    ) -> None:
        options = ("--config", "python:interrupted", "--max-requests", str(REQUESTS), *options)
        modules = {name: (SERVED / f"{name}.py").read_text() for name in ("interrupted", "shots")}
        self.server = Server(target.python, worker_class, 1, options, variables, modules)
        self.patience = patience
        self.requests: List[str] = []

    def get(self) -> None:
        request = new_request()
        with Client(self.server.socket, self.patience) as client:
            client.get("async", request)
        self.requests.append(request)

    def live(self) -> None:
        """One worker's life: its last request ends it."""
        ended = len(self.server.exits())
        for _ in range(REQUESTS):
            self.get()
        wait.until(lambda: len(self.server.exits()) > ended, lambda: "the worker does not end", self.patience)

    def end(self) -> None:
        self.get()
        self.server.process.terminate()
        self.server.process.wait(self.patience)
        assert self.complaints() == []

    def places(self) -> List[str]:
        return (self.server.directory / "places").read_text().splitlines()

    def complaints(self) -> List[str]:
        """All that the signals broke, but for the exit statuses."""
        found = self.server.logs.not_exactly_once(self.requests)
        for event, *details in self.server.events():
            if event == "exiting" and details[1:]:
                found.append(f"not reopened: {details[1:]}")
        text = WAKEUP.sub("", "\n".join(self.server.logs.lines("error.log")) + "\n" + self.server.stderr())
        lines = Counter(TIME.sub("", text).splitlines())
        for line, times in lines.items():
            if not INFORMATION.match(line):
                found.append(line)
            elif times > 1 and not line.startswith(f"[{self.server.arbiter}]"):
                found.append(f"logged {times} times: {line}")
        for pid, status in self.server.exits().items():
            expected = [f"[{pid}] [INFO] Booting worker with pid: {pid}"]
            # Uvicorn raises SIGTERM again
            expected += [f"[{pid}] [INFO] Worker exiting (pid: {pid})"] * (status == 0)
            found += [f"lost: {line}" for line in expected if line not in lines]
        return found


def withstands(target: Environment, worker_class: str, ended: int, *options: str) -> None:
    # Seconds: a signal at each of thousands of boundaries, on a busy machine
    life = Life(target, worker_class, *options, patience=120)
    with life.server:
        life.live()
        life.end()
        assert list(life.server.exits().values()) == [0, ended]
        assert {place.split()[0] for place in life.places()} == {"boot", "loaded", "serving", "closing", "ending"}


@subjects("uvloop", "gthread")
def test_a_worker_withstands_a_signal_at_every_boundary(subject: str) -> None:
    worker_class = SUBJECTS[subject].worker_class
    ended = 0 if is_own(worker_class) else signal.SIGTERM
    withstands(SUBJECTS[subject].environment(), worker_class, ended, *options(subject))


@pytest.mark.full
@pytest.mark.parametrize("name", ["UvicornWorker", "UvicornH11Worker"])
@pytest.mark.parametrize("workers", environments.VARIANTS, ids=str)
def test_a_worker_of_every_patch_of_uvicorn_withstands_it(workers: Workers, name: str) -> None:
    worker_class = f"{environments.MODULES[workers.distribution]}.{name}"
    ended = signal.SIGTERM if Version(workers.uvicorn) >= Version("0.29.0") else 0
    target = environments.patched_until_exit(published(workers), workers.name)
    withstands(target, worker_class, ended)


@pytest.mark.full
@subjects(*SUBJECTS)
def test_a_signal_at_any_boundary_is_honoured(subject: str) -> None:
    """Worker after worker, until no place is left."""
    target, worker_class = SUBJECTS[subject].environment(), SUBJECTS[subject].worker_class
    life = Life(target, worker_class, *options(subject), patience=600, CALLS="50", TERMINATED="0")
    with life.server:
        before, places = -1, 0
        while before < places:
            life.live()
            before, places = places, len(life.places())
        life.end()
        assert set(life.server.exits().values()) <= {0, signal.SIGTERM}


# A log write and the handler: served/sweeps.py


def sweep(
    target: Environment, worker_class: str, sweeps: Sequence[str], part: int, parts: int, patience: float = 600
) -> None:
    """Nothing is wrong after one of so many parts of these sweeps."""
    sources = {"application": (SERVED / "sweeps.py").read_text(), "shots": (SERVED / "shots.py").read_text()}
    modules = {**sources, "wsgi": "from application import app"}
    variables = {"SWEEPS": " ".join(sweeps), "PART": str(part), "PARTS": str(parts)}
    with Server(target.python, worker_class, 1, ["--capture-output"], variables, modules) as server:

        def done() -> int:
            expect(not server.exits() and server.process.poll() is None, server.last_words)
            return server.times("done")

        wait.until(done, lambda: f"not done: {server.events()}", patience)
        failed = [" ".join(words[1:]) for words in server.events() if words[0] == "failed"]
        failed += [line for line in server.logs.lines("error.log") if "[INFO]" not in line]
        expect(not failed, "\n".join(failed))


PARTS = [(7, 71), *(pytest.param(part, 10, marks=pytest.mark.full) for part in range(10))]


@pytest.mark.root  # Who creates new files like the old ones
@subjects("sync", "uvloop")
@pytest.mark.parametrize("part, parts", PARTS)
def test_nothing_is_found_in_the_patches(subject: str, part: int, parts: int) -> None:
    names = [*SWEEPS, *[FIRST_LINE] * (THEIRS in SUBJECTS[subject].patches)]
    sweep(SUBJECTS[subject].environment(), SUBJECTS[subject].worker_class, names, part, parts)


def test_it_finds_what_the_published_release_does() -> None:
    with pytest.raises(AssertionError, match="reentrant call inside"):
        sweep(PRISTINE.environment(), UVICORN, ["in_a_log_write"], 0, 5, patience=20)
