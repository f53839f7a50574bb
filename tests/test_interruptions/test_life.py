"""SIGUSR1 at every bytecode boundary of a worker's life, each after a rotation."""

import contextlib
import re
import signal
import subprocess
from collections import Counter
from typing import List, Sequence

import environments
import pytest
from environments import Environment, Workers
from packaging.version import Version
from properties import wait
from properties.clients import Client, new_request
from properties.environment import is_own
from properties.expect import Broken
from properties.server import Server

from test_interruptions.subjects import NEWEST, SERVED, SUBJECTS, environment, subjects

REQUESTS = 4  # Of a worker
PATIENCE = 120.0  # Seconds: a signal at each of thousands of boundaries, on a busy machine

# asyncio's close() leaves SIGQUIT's wakeup pipe installed for some bytecodes after closing it.
WAKEUP = re.compile(
    r"Exception ignored (?:when|while) trying to write to the signal wakeup fd:\n"
    r"Traceback .*\n(?: .*\n|\n)*(?:BrokenPipeError|OSError): .*\n"
)
INFORMATION = re.compile(r"\[[^]]*\] \[(\d+)\] \[(?:INFO\]|WARNING\] Maximum request limit)(.*)")


class Life:
    """A server with one worker after the other, each interrupting itself where none before it has."""

    def __init__(
        self,
        target: Environment,
        worker_class: str,
        *options: str,
        calls: int = 2,
        ended: int = 2,
        patience: float = PATIENCE,
    ) -> None:
        options = ("--config", "python:interrupted", "--max-requests", str(REQUESTS), *options)
        variables = {"CALLS": str(calls), "REQUESTS": str(REQUESTS), "ENDED": str(ended)}
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
        """Have the arbiter end the worker, after a request."""
        self.get()
        self.server.process.terminate()
        self.server.process.wait(self.patience)

    def places(self) -> List[str]:
        return (self.server.directory / "places").read_text().splitlines()

    def complaints(self) -> List[str]:
        """All that the signals broke, but for the exit statuses."""
        found = self.server.logs.not_exactly_once(self.requests)
        for event, *details in self.server.events():
            if event == "exiting" and details[1:]:
                found.append(f"not reopened: {details[1:]}")
        lines: "Counter[str]" = Counter()
        text = WAKEUP.sub("", "\n".join(self.server.logs.lines("error.log")) + "\n" + self.server.stderr())
        for line in text.splitlines():
            information = INFORMATION.match(line)
            if not information:
                found.append(line)
            elif int(information[1]) in self.server.exits():
                lines["".join(information.groups())] += 1
        found += [f"logged {times} times: {line}" for line, times in lines.items() if times > 1]
        for pid, status in self.server.exits().items():
            expected = [f"{pid} Booting worker with pid: {pid}"]
            expected += [f"{pid} Worker exiting (pid: {pid})"] * (status == 0)  # Uvicorn raises SIGTERM again
            found += [f"lost: {line}" for line in expected if line not in lines]
        return found


def withstands(target: Environment, worker_class: str, ended: int, *options: str) -> None:
    life = Life(target, worker_class, *options)
    with life.server:
        life.live()
        life.end()
        assert life.complaints() == []
        assert list(life.server.exits().values()) == [0, ended]
        assert {place.split()[0] for place in life.places()} == {"boot", "loading", "serving", "closing", "ending"}


def captured(patched: Sequence[str]) -> List[str]:
    """At boot uvicorn's patch leaves captured output to the next signal."""
    return ["--capture-output"] * ("gunicorn" in patched)


@subjects("uvloop", "gthread")
def test_a_worker_withstands_a_signal_at_every_boundary(subject: str) -> None:
    worker_class, patched = SUBJECTS[subject]
    withstands(environment(NEWEST, *patched), worker_class, 0 if is_own(worker_class) else 15, *captured(patched))


@pytest.mark.full
@pytest.mark.parametrize("name", ["UvicornWorker", "UvicornH11Worker"])
@pytest.mark.parametrize("workers", environments.VARIANTS, ids=str)
def test_a_worker_of_every_patch_of_uvicorn_withstands_it(workers: Workers, name: str) -> None:
    worker_class = f"{environments.MODULES[workers.distribution]}.{name}"
    ended = 15 if Version(workers.uvicorn) >= Version("0.29.0") else 0
    withstands(environment(workers, workers.distribution), worker_class, ended)


@pytest.mark.full
@subjects(*SUBJECTS)
def test_a_signal_at_any_boundary_is_honoured(subject: str) -> None:
    """Worker after worker, until no place is left."""
    worker_class, patched = SUBJECTS[subject]
    life = Life(environment(NEWEST, *patched), worker_class, *captured(patched), calls=50, ended=0, patience=600)
    with life.server:
        before, places = -1, 0
        while before < places:
            life.live()
            before, places = places, len(life.places())
        life.end()
        print(f"{places} signals in {len(life.server.exits())} workers")
        assert life.complaints() == []
        assert set(life.server.exits().values()) <= {0, signal.SIGTERM}


@pytest.mark.full
@pytest.mark.parametrize(("release", "harm"), [("0.13.2", "not reopened"), ("0.18.3", "killed by SIGUSR1")])
def test_it_finds_what_published_releases_do(release: str, harm: str) -> None:
    life = Life(environment(environments.uvicorn(release)), "uvicorn.workers.UvicornH11Worker", patience=5)
    with life.server:
        with contextlib.suppress(Broken, subprocess.TimeoutExpired):
            life.live()
            life.end()
        assert any(harm in complaint for complaint in [*life.complaints(), *life.server.deaths()])
