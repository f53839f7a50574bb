"""While workers serve."""

import contextlib
import re
import statistics
import time
from typing import List

from hypothesis import given
from hypothesis import strategies as st

from properties.clients import Client, Load, new_request
from properties.conftest import Servers
from properties.logs import NAMES
from properties.schedules import Step, bursts, kinds, play, schedules, storm, targets

loads = st.integers(1, 4)


@given(schedule=schedules, clients=loads, kinds=kinds)
def test_survival(servers: Servers, worker_class: str, schedule: List[Step], clients: int, kinds: List[str]) -> None:
    """No worker dies of SIGUSR1, and no request is broken by it."""
    with servers.use(worker_class) as server:
        before = server.workers()
        load = play(schedule, server, clients, kinds)
        assert not server.exits(), f"SIGUSR1 was fatal: {server.deaths()}"
        assert server.workers() == before
        assert not load.broken


@given(schedule=schedules, clients=loads, kinds=kinds)
def test_exactly_once(
    servers: Servers, worker_class: str, schedule: List[Step], clients: int, kinds: List[str]
) -> None:
    """Every answered request has its line exactly once over all files of the access, error and application logs."""
    with servers.use(worker_class) as server:
        load = play(schedule, server, clients, kinds)
        assert not server.logs.not_exactly_once(load.requests)


@given(target=targets, times=bursts, create=st.booleans(), clients=loads, kinds=kinds)
def test_reopening(
    servers: Servers, worker_class: str, target: str, times: int, create: bool, clients: int, kinds: List[str]
) -> None:
    """After a rotation no process writes to a rotated file, and every new line is in the new files."""
    with servers.use(worker_class) as server:
        with Load(server.socket, clients, kinds) as load:
            load.wait_for_answers(clients)
            server.logs.rotate(create=create)
            server.signal(target, times=times)
            server.wait_until_reopened(server.reached_by(target))
            since = new_request()
            load.wait_for_answers(3 * clients)
        new = load.answered_since(since)
        assert new
        for name in NAMES:
            in_new_file = server.logs.requests(name, current_only=True)
            assert not [request for request in new if in_new_file[request] != 1], f"not once in the new {name}"


def test_promptness(servers: Servers, worker_class: str) -> None:
    """A rotation takes effect within a second."""
    times = []
    with servers.use(worker_class) as server:
        for _ in range(5):
            server.get()
            server.logs.rotate()
            start = time.monotonic()
            server.signal("arbiter")
            server.wait_until_reopened(server.pids("all"))
            times.append(time.monotonic() - start)
    # The median, so that a machine busy with something else does not fail the patch.
    assert statistics.median(times) < 1


@given(
    requests=st.lists(st.sampled_from(["async", "thread", "stream", "upload"]), min_size=1, max_size=4),
    target=targets,
    times=bursts,
)
def test_in_flight(servers: Servers, worker_class: str, requests: List[str], target: str, times: int) -> None:
    """Requests in flight during a rotation are answered, with their lines exactly once."""
    with servers.use(worker_class) as server, contextlib.ExitStack() as stack:
        in_flight = []
        for kind in requests:
            client, request = stack.enter_context(Client(server.socket)), new_request()
            hold = stack.enter_context(server.hold(request))
            client.send(kind, request, body=4 if kind == "upload" else None)
            hold.reached()
            in_flight.append((client, kind, request, hold))
        server.logs.rotate()
        server.signal(target, times=times)
        server.wait_until_reopened(server.reached_by(target))
        for client, kind, _, hold in in_flight:
            hold.release()
            if kind == "upload":
                client.socket.sendall(b"body")
            client.answer()
        assert not server.logs.not_exactly_once(request for _, _, request, _ in in_flight)


@given(schedule=schedules, clients=loads, kinds=kinds)
def test_silence(servers: Servers, worker_class: str, schedule: List[Step], clients: int, kinds: List[str]) -> None:
    """No signal leaves anything like a traceback in the error log or on stderr."""
    with servers.use(worker_class) as server:
        before = server.stderr()
        play(schedule, server, clients, kinds)
        with Load(server.socket, clients, kinds) as load:
            storm(server, load, rotations=20)
        assert server.stderr() == before
        assert not re.search(
            r"Traceback|Error|Exception|\[ERROR\]|\[CRITICAL\]", "\n".join(server.logs.lines("error.log"))
        )
