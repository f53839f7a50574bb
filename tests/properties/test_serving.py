"""While workers serve."""

import contextlib
import statistics
import time
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import wait
from properties.activities import BLOCKING, doing
from properties.clients import Client, Load, new_request
from properties.conftest import Servers
from properties.environment import GEVENT, SYNC
from properties.expect import BREAKS, COMPLAINS, MISSES, count, expect
from properties.logs import NAMES
from properties.schedules import LOGROTATE, Rotate, Step, bursts, compress, kinds, play, schedules, storm, targets
from properties.server import COMPLAINT

loads = st.integers(1, 4)


@given(schedule=schedules, clients=loads, kinds=kinds)
def test_survival(servers: Servers, worker_class: str, schedule: List[Step], clients: int, kinds: List[str]) -> None:
    """SIGUSR1 kills no worker and breaks no request."""
    with servers.use(worker_class) as server:
        before = server.workers()
        load = play(schedule, server, clients, kinds)
        server.expect_same_workers(before, "under load")
        load.expect_unbroken()


@given(schedule=schedules, clients=loads, kinds=kinds)
def test_exactly_once(
    servers: Servers, worker_class: str, schedule: List[Step], clients: int, kinds: List[str]
) -> None:
    """Every answered request has one line in each log, though logrotate takes the rotated files a second later."""
    with servers.use(worker_class) as server:
        with Load(server.socket, clients, kinds) as load:
            for step in [*schedule, Rotate(NAMES, create=False)]:
                step.run(server, load)
            pids = server.pids("all")
            server.signal("arbiter")
            compress(server, pids)
            load.wait_for_answers(3 * clients)
        server.logs.expect_exactly_once(load.requests)


@given(target=targets, times=bursts, create=st.booleans(), clients=loads, kinds=kinds)
def test_reopening(
    servers: Servers, worker_class: str, target: str, times: int, create: bool, clients: int, kinds: List[str]
) -> None:
    """After a rotation no process writes to a rotated file, and every new line is in the new files."""
    with servers.use(worker_class) as server, Load(server.socket, clients, kinds) as load:
        load.wait_for_answers(clients)
        server.rotate(target=target, times=times, create=create)
        with Load(server.socket, clients, kinds) as later:
            later.wait_for_answers(3 * clients)
        server.logs.expect_in_new_files(later.requests)


def test_promptness(servers: Servers, worker_class: str) -> None:
    """A rotation takes effect within a second."""
    times = []
    with servers.use(worker_class) as server:
        for _ in range(5):
            server.get()
            start = time.monotonic()
            server.rotate()
            times.append(time.monotonic() - start)
    # The median, so that a machine busy with something else does not fail the patch.
    median = statistics.median(times)
    expect(median < 1, f"it took {median:.1f} s until all had let go of the rotated files, the median of 5", MISSES)


@given(
    requests=st.lists(st.sampled_from(["async", "thread", "stream", "upload"]), min_size=1, max_size=4),
    target=targets,
    times=bursts,
)
def test_in_flight(servers: Servers, worker_class: str, requests: List[str], target: str, times: int) -> None:
    """Requests that are being answered during a rotation are completed, and logged exactly once."""
    workers = 4 if worker_class == SYNC else 2  # One for each request
    with servers.use(worker_class, workers=workers) as server, contextlib.ExitStack() as stack:
        in_flight = []
        if worker_class == SYNC:  # Its main thread waits for a body in a read that the kernel restarts
            requests = [kind for kind in requests if kind != "upload"]
        for kind in requests:
            client, request = stack.enter_context(Client(server.socket)), new_request()
            hold = stack.enter_context(server.hold(request))
            client.send(kind, request, body=4 if kind == "upload" else None)
            hold.reached()
            in_flight.append((client, kind, request, hold))
        server.rotate(target=target, times=times)
        for client, kind, _, hold in in_flight:
            hold.release()
            if kind == "upload":
                client.send_raw(b"body")
            client.answer()
        server.logs.expect_exactly_once([request for _, _, request, _ in in_flight])


@given(schedule=schedules, clients=loads, kinds=kinds)
def test_silence(servers: Servers, worker_class: str, schedule: List[Step], clients: int, kinds: List[str]) -> None:
    """SIGUSR1 leaves no traceback in the error log or on stderr."""
    with servers.use(worker_class) as server:
        before = server.stderr()
        play(schedule, server, clients, kinds)
        with Load(server.socket, clients, kinds) as load:
            storm(server, load, rotations=20)
        server.expect_silence(before, "under load")
        said = list(filter(COMPLAINT.search, server.logs.lines("error.log")))
        expect(not said, lambda: f"{count(len(said), 'complaint')} in error.log, such as {said[-1]!r}", COMPLAINS)


def test_blocked_loop(servers: Servers, worker_class: str) -> None:
    """An application that blocks its event loop writes to the new files after a rotation."""
    if worker_class == GEVENT:
        pytest.skip("gevent's worker leaves it to a greenlet, which waits until the application yields")
    with servers.use(worker_class, workers=len(BLOCKING)) as server, doing(server, BLOCKING) as activities:
        logging = [activity for activity in activities.running if activity.kind != "reading"]

        def counts() -> List[int]:
            return [len(activity.found("application.log")) for activity in logging]

        wait.until(
            lambda: min(counts()) >= 100,
            lambda: f"an application that blocks its event loop did not log 100 lines within {wait.PATIENCE:g} s",
        )
        server.logs.rotate()
        server.signal("arbiter")
        compress(server, server.pids("all"))
        before = counts()
        try:  # What is written to the removed files by now is lost, and a worker that was killed writes no more
            wait.until(
                lambda: server.exits() or all(now >= then + 10 for then, now in zip(before, counts())),
                lambda: f"a worker stood still, {3 * LOGROTATE:g} s after SIGUSR1",
                2 * LOGROTATE,
                BREAKS,
            )
        finally:
            activities.finish().expect_lossless("while the application blocked its event loop")
