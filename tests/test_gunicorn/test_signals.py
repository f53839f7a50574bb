"""A signal at any moment of a worker's life, and many of them."""

import signal
from typing import List

import pytest
from environments import UVICORN
from properties import wait
from properties.clients import Load
from properties.expect import Broken
from properties.server import Server, send

from test_gunicorn.conftest import AIOHTTPS, Gunicorn, classes

PAIRS, BURST = 100, 1000  # By default; with --full ten times as many


def pairs_and_burst(server: Server, times: int) -> None:
    """Signals as killall sends them, to each worker one of its own and one of the arbiter's, and then no peace."""
    for _ in range(PAIRS * times):
        server.signal("all")
    server.signal("workers", times=BURST * times)
    server.rotate(target="all")


@classes("sync", "gthread", UVICORN)
def test_burst(gunicorn: Gunicorn, worker_class: str, request: pytest.FixtureRequest) -> None:
    with gunicorn.serve(worker_class, "--capture-output", workers=2) as server:
        workers = server.workers()
        with Load(server.socket, 2, requests_each=1) as load:
            pairs_and_burst(server, 10 if request.config.getoption("--full") else 1)
            load.wait_for_answers(5)
        load.expect_unbroken()
        server.expect_same_workers(workers, "in a burst")


@pytest.mark.parametrize("worker_class", [pytest.param("sync", marks=pytest.mark.full), "gthread"])
def test_pristine_hangs(pristine: Gunicorn, worker_class: str) -> None:
    with pristine.serve(worker_class, "--capture-output", workers=2) as server:
        server.reopening = wait.Patience(0.5)
        with pytest.raises(Broken, match="[12] of 3 processes still wrote to a rotated"):
            pairs_and_burst(server, 10)


@classes("sync", "asgi", UVICORN)
@pytest.mark.parametrize("place", ["post_fork", pytest.param("load", marks=pytest.mark.full)])
def test_boot(server: Server, place: str) -> None:
    """Honoured at once, while the worker does not even know yet what it is to serve."""
    with server.booting(place) as worker:
        server.logs.rotate()
        server.signal("workers")
        server.wait_until_reopened([worker])
    server.wait_until_serving()
    server.expect_same_workers([worker], f"in {place}")


@classes("sync", "asgi")
def test_pristine_swallows(pristine_server: Server) -> None:
    with pytest.raises(Broken, match="1 of 1 processes still wrote to a rotated"):
        test_boot(pristine_server, "post_fork")


@classes("sync")
def test_forked_with_files_that_were_rotated(server: Server) -> None:
    """A worker has the files that the arbiter has, which does not know yet that they were rotated."""
    server.logs.rotate()
    with server.booting() as worker:
        server.wait_until_reopened([worker])
    server.wait_until_serving()


@pytest.mark.parametrize("worker_class", ["sync"])
def test_pristine_keeps_files_that_were_rotated(pristine_server: Server) -> None:
    with pytest.raises(Broken, match="1 of 1 processes still wrote to a rotated"):
        test_forked_with_files_that_were_rotated(pristine_server)


def test_an_event_loop_closes(gunicorn: Gunicorn) -> None:
    """asyncio's resets its signals then, uvloop's does not."""
    with gunicorn.serve("asgi", "--asgi-loop", "asyncio", variables={"HABIT": "signal_as_the_loop_closes"}) as server:
        server.signal("workers", signal.SIGTERM)
        wait.until(server.exits, lambda: "the worker did not end")
        server.expect_no_deaths("as its event loop was closed")


def end_under_signals(server: Server) -> List[str]:
    """How the workers end that get SIGTERM, and SIGUSR1 until they are gone."""
    workers = server.workers()
    server.signal("workers", signal.SIGTERM)

    def ended() -> bool:
        send(set(workers) - server.exits().keys(), signal.SIGUSR1)
        return server.exits().keys() >= set(workers)

    wait.until(ended, lambda: f"{set(workers) - server.exits().keys()} did not end")
    return [server.exit_of(worker) for worker in workers]


@classes("sync", "asgi", UVICORN, without=["tornado"])
def test_exit(gunicorn: Gunicorn, worker_class: str) -> None:
    """
    Tornado's worker forgets a SIGTERM that comes as soon as the application is loaded.

    An event loop that has a handler for the signal, aiohttp's and asgi's, resets it as it closes: for some tens of
    microseconds the signal is fatal, as published. It seldom hits one of the four workers, and not two of them.
    """
    expected = {"exited with 0", "killed by SIGTERM"}  # Uvicorn raises it again when all is done
    if worker_class in ("asgi", AIOHTTPS):
        expected.add("killed by SIGUSR1")
    with gunicorn.serve(worker_class, workers=4) as server:
        ended = end_under_signals(server)
    assert set(ended) <= expected and ended.count("killed by SIGUSR1") <= 1


@pytest.mark.parametrize("worker_class", ["asgi", pytest.param(AIOHTTPS, marks=pytest.mark.full)])
def test_pristine_is_killed(pristine: Gunicorn, worker_class: str) -> None:
    with pristine.serve(worker_class, workers=4) as server:
        assert end_under_signals(server).count("killed by SIGUSR1") > 1
