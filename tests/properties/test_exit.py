"""While a worker ends."""

import contextlib
import signal
from typing import Dict, List, Tuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from properties import wait
from properties.clients import Load
from properties.conftest import Servers
from properties.environment import is_wsgi
from properties.expect import KILLS, Broken, expect
from properties.schedules import few, kinds, storm, targets
from properties.server import Hold, Server, send

PLACES = ("shutdown", "worker_exit", "atexit", "last-atexit", "finalization")
told = st.fixed_dictionaries({place: st.tuples(targets, st.integers(0, 5)) for place in PLACES})


def arrive(server: Server, worker: int, hold: Hold) -> None:
    """Wait until the worker has come to this place, alive."""
    wait.until(
        lambda: hold.marks() or worker in server.exits(),
        lambda: f"a worker did not come to its {hold.place} within {wait.PATIENCE:g} s",
        harm=KILLS,
    )
    expect(worker not in server.exits(), lambda: f"1 worker {server.exit_of(worker)} before its {hold.place}", KILLS)


@example(told={place: ("workers", 1) for place in PLACES})
@few
@given(told=told)
def test_way_out(servers: Servers, worker_class: str, told: Dict[str, Tuple[str, int]]) -> None:
    """SIGUSR1 does not kill a worker that is ending: in shutdown, in exit hooks, in finalization."""
    with servers.use(worker_class, "--max-requests", "2", workers=1) as server, contextlib.ExitStack() as stack:
        [worker] = server.workers()
        without = {"shutdown": is_wsgi(worker_class), "finalization": servers.environment.is_pypy}  # They have none
        places = [place for place in PLACES if not without.get(place)]
        holds = {place: stack.enter_context(server.hold(place)) for place in places}
        requests = server.get(), server.get()
        for place, hold in holds.items():
            arrive(server, worker, hold)
            target, times = told[place]
            server.logs.rotate()
            server.signal(target, times=times)
            if target == "arbiter" and times:
                server.wait_until_reopened([server.arbiter])
            hold.release()
        ended = server.exit_of(worker)
        expect(ended == "exited with 0", f"1 worker {ended} on its way out", KILLS)
        server.logs.expect_exactly_once(requests)


def end_worker(server: Server, number: signal.Signals, usr1_target: str = "") -> str:
    """Stop the only worker, with SIGUSR1 to a target all the while; how it ended, in words."""
    [worker] = server.workers()
    send([worker], number)

    def ended() -> bool:
        if usr1_target:
            server.signal(usr1_target)
        return worker in server.exits()

    wait.until(ended, lambda: f"a worker did not end within {wait.PATIENCE:g} s", harm=KILLS)
    server.wait_until_serving()
    return server.exit_of(worker)


@few
@given(number=st.sampled_from([signal.SIGTERM, signal.SIGINT]), target=st.sampled_from(["arbiter", "workers"]))
def test_stopping(servers: Servers, worker_class: str, number: signal.Signals, target: str) -> None:
    """A worker that is told to stop ends with SIGUSR1 as it does without."""
    with servers.use(worker_class, workers=1) as server:
        disturbed, alone = end_worker(server, number, target), end_worker(server, number)
        expect(
            disturbed == alone,
            f"a worker told to stop by {number.name} {alone}, but {disturbed} with SIGUSR1 all the way",
            KILLS,
        )


@few
@given(clients=st.integers(1, 4), kinds=kinds)
def test_turnover(servers: Servers, worker_class: str, clients: int, kinds: List[str]) -> None:
    """While max_requests replaces workers, no line is lost and no worker is killed."""
    try:
        turn_over(servers, worker_class, clients, kinds)
    except Broken:
        if breaks_by_itself(servers, worker_class):
            pytest.skip("requests break after max_requests in this release, without any signal, too")
        raise


def turn_over(servers: Servers, worker_class: str, clients: int, kinds: List[str]) -> None:
    with servers.use(worker_class, "--max-requests", "10") as server:
        before = len(server.exits())

        def turned_over() -> bool:
            storm(server, load, rotations=5)
            return len(server.exits()) > before + 1

        with Load(server.socket, clients, kinds, requests_each=3) as load:
            wait.until(turned_over, lambda: f"no worker ended after max_requests within {wait.PATIENCE:g} s")
        server.expect_no_deaths("while workers ended after max_requests")
        server.logs.expect_exactly_once(load.requests)


def breaks_by_itself(servers: Servers, worker_class: str) -> bool:
    """As Gunicorn's asgi worker did before 27: it does not end then, but closes each connection after an answer."""
    many = 20
    with servers.use(worker_class, "--max-requests", "9") as server, Load(server.socket, 1, requests_each=3) as load:
        wait.until(lambda: len(load.broken) > many or len(server.exits()) > 2, lambda: "no worker ended")
    return len(load.broken) > many
