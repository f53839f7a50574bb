"""
Whatever happens to a server, in whatever order, no line is lost or doubled and no worker dies of SIGUSR1.

Hypothesis draws what happens, and prints the shortest story that it finds against this as a script.
"""

import contextlib
import re
import signal
import threading
from pathlib import Path
from typing import Dict, List, Set, Tuple

import environments
import hypothesis
import pytest
import test_load
from environments import Environment
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from properties import wait
from properties.clients import Client, Load, new_request
from properties.logs import NAMES
from properties.schedules import kinds, names, storm
from properties.server import Server, send
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, unix_connect

workers = st.integers(0, 3)  # Of those that there are, counted round

# What CPython says when hundreds of signals find the loop busy. The wakeup pipe, which asyncio has for uvicorn's
# SIGQUIT handler, is full then, on the pristine release too; the loop wakes up all the same.
FULL = re.compile(
    r"Exception ignored (?:when|while) trying to write to the signal wakeup fd:\n"
    r"Traceback .*\n(?: .*\n|\n)*BlockingIOError: .*\n"
)


class Stream(threading.Thread):
    """A request whose answer takes several seconds."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.request = new_request()
        self.client = Client(server.socket)
        self.client.send("stream", self.request, "800")
        self.answered = False
        self.start()

    def run(self) -> None:
        with self.client, contextlib.suppress(OSError):
            self.client.answer()
            self.answered = True


class Machine(RuleBasedStateMachine):
    environment: Environment
    server: Server

    @initialize(
        preload=st.booleans(),
        capture=st.booleans(),
        max_requests=st.sampled_from([0, 0, 25]),
        worker_class=st.sampled_from(["UvicornWorker", "UvicornH11Worker"]),
    )
    def start(self, preload: bool, capture: bool, max_requests: int, worker_class: str) -> None:
        options = ["--preload"] * preload + ["--capture-output"] * capture + ["--max-requests", str(max_requests)]
        self.server = Server(self.environment.python, f"uvicorn.workers.{worker_class}", 2, options).__enter__()
        self.quiet = self.server.stderr()
        self.expected: Dict[str, List[str]] = {name: [] for name in NAMES}
        self.untold: Set[str] = set()  # Logs that were rotated since all processes were last told
        self.streams: List[Stream] = []
        self.sockets: List[ClientConnection] = []
        self.kept: Dict[str, Client] = {}
        self.max_requests = max_requests
        self.churned = bool(max_requests)  # Connections may be closed by a worker that ends
        self.killed = False

    # What clients do

    @rule(kind=st.sampled_from(["async", "thread", "stream", "block"]), times=st.integers(1, 20), keep=st.booleans())
    def ask(self, kind: str, times: int, keep: bool) -> None:
        for _ in range(times):
            request = new_request()
            try:
                client = self.kept.pop("client", None) or Client(self.server.socket)
                client.get(kind, request)
            except OSError:
                assert self.churned, "a request was broken"
                continue
            self.expect(request)
            if keep:
                self.kept["client"] = client
            else:
                client.socket.close()

    @rule()
    def begin_stream(self) -> None:
        if len(self.streams) < 4:
            self.streams.append(Stream(self.server))

    @rule()
    def open_websocket(self) -> None:
        if len(self.sockets) < 2:
            try:
                self.sockets.append(unix_connect(str(self.server.socket), "ws://test/websocket/talk"))
            except (OSError, InvalidHandshake):
                assert self.churned, "a websocket was refused"

    @precondition(lambda self: self.sockets)
    @rule(times=st.integers(1, 5))
    def talk(self, times: int) -> None:
        socket = self.sockets[-1]
        try:
            for _ in range(times):
                request = new_request()
                socket.send(request)
                assert socket.recv(wait.PATIENCE) == request
                # What is said in a websocket is the application's to log, not the server's.
                self.expect(request, ("error.log", "application.log"))
        except ConnectionClosed:
            assert self.churned, "a websocket was closed"
            self.sockets.remove(socket)

    # What logrotate does

    @rule(names=names, create=st.booleans(), twice=st.booleans())
    def rotate(self, names: Tuple[str, ...], create: bool, twice: bool) -> None:
        self.untold |= set(names)
        for _ in range(1 + twice):
            self.server.logs.rotate(names, create)

    @rule(names=names)
    def delete(self, names: Tuple[str, ...]) -> None:
        self.untold |= set(names)
        self.server.logs.delete(names)

    @rule(told=st.sampled_from(["arbiter", "workers", "all"]), times=st.one_of(st.just(1), st.integers(2, 1000)))
    def tell(self, told: str, times: int) -> None:
        # A worker that takes another's place is told before init_signals, in vain, unless there are new files by then.
        target = "all" if self.max_requests else told
        self.server.signal(target, times=times)
        self.server.wait_until_reopened(self.server.reached_by(target))
        self.untold.clear()

    @rule(worker=workers, times=st.integers(1, 1000))
    def tell_one(self, worker: int, times: int) -> None:
        pids = self.server.workers()
        send(pids[worker % len(pids) :][:1] * times, signal.SIGUSR1)

    @rule(clients=st.integers(1, 3), kinds=kinds, rotations=st.integers(1, 10))
    def rotate_under_load(self, clients: int, kinds: List[str], rotations: int) -> None:
        with Load(self.server.socket, clients, kinds) as load:
            storm(self.server, load, rotations)
        assert self.churned or not load.broken
        self.untold |= set(NAMES)  # The last signal may not have been handled yet
        for name in NAMES:
            self.expected[name] += load.requests

    @rule(
        place=st.sampled_from(["post_fork", "lifespan", "blocking-lifespan"]), told=st.sampled_from(["workers", "all"])
    )
    def rotate_during_boot(self, place: str, told: str) -> None:
        with self.server.hold(place) as hold:
            self.kill(0)
            hold.reached()
            self.server.logs.rotate()
            for name in NAMES:  # Also of one that was missing: a worker that boots can only catch up with what is there
                self.server.logs.path(name).touch()
            self.server.signal(told)
        self.server.wait_until_serving()
        self.server.wait_until_reopened(self.server.reached_by(told))
        self.untold.clear()

    # What administrators, and accidents, do

    @rule()
    def one_more(self) -> None:
        if self.server.worker_count < 4:
            self.server.worker_count += 1
            self.server.signal("arbiter", signal.SIGTTIN)

    @rule()
    def one_less(self) -> None:
        if self.server.worker_count > 1:
            self.churned = True
            self.server.worker_count -= 1
            self.server.signal("arbiter", signal.SIGTTOU)

    @rule()
    def reload(self) -> None:
        self.churned = True
        before = set(self.server.workers())
        self.server.worker_count = 2  # As configured
        self.server.signal("arbiter", signal.SIGHUP)
        wait.until(lambda: not before & set(self.server.workers()), lambda: "SIGHUP did not replace the workers", 60)

    @rule(worker=workers)
    def kill(self, worker: int) -> None:
        self.churned = self.killed = True
        pids = self.server.workers()
        victim = pids[worker % len(pids)]
        send([victim], signal.SIGKILL)
        self.server.exit_of(victim)

    # What must be so

    def expect(self, request: str, logs: Tuple[str, ...] = NAMES) -> None:
        """It has been answered; where all processes have been told, its lines are in the new files."""
        for name in logs:
            self.expected[name].append(request)
            if name not in self.untold:
                assert self.server.logs.requests(name, current_only=True)[request] == 1, f"not in the new {name}"

    @invariant()
    def nothing_is_wrong(self) -> None:
        if not hasattr(self, "server"):
            return
        self.server.wait_until_serving()
        assert not [death for death in self.server.deaths() if "SIGUSR1" in death]
        # It may be about to be written
        wait.until(lambda: FULL.sub("", self.server.stderr()) == self.quiet, self.server.stderr)
        assert not re.search("reentrant|while reopening", "\n".join(self.server.logs.lines("error.log")))
        for name, requests in self.expected.items():
            assert not self.server.logs.not_exactly_once(requests, [name])

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        try:
            for stream in self.streams:
                stream.join()
                assert stream.answered or self.killed, "a stream was cut off"
            finished = [stream.request for stream in self.streams if stream.answered]
            assert not self.server.logs.not_exactly_once(finished)
        finally:
            self.server.__exit__()


@pytest.mark.full
@pytest.mark.parametrize("part", range(10))
def test_machine(part: int, tmp_path: Path) -> None:
    @hypothesis.seed(part)
    class Patched(Machine):
        environment = environments.patched_copy(test_load.pristine(), tmp_path / "venv", "uvicorn", environments.NEWEST)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Patched,
        settings=hypothesis.settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
