"""No line is lost and no request broken by rotations, of whichever logger's file, under whichever worker class."""

import signal
from pathlib import Path
from typing import List

import environments
import pytest
from packaging.version import Version
from properties import wait
from properties.cases import Case, Handler
from properties.clients import Client, Load
from properties.expect import Broken, Unanswered
from properties.logs import NAMES
from properties.server import Server

from test_gunicorn.conftest import AIOHTTPS, NEWEST, Gunicorn, classes, pristine_environment, uvicorn


def names(worker_class: str) -> List[str]:
    """Tornado has an access log of its own, which goes to the root logger."""
    return ["error.log"] if worker_class == "tornado" else list(NAMES)


def rotate_under_load(
    server: Server, worker_class: str, rotations: int, target: str = "arbiter", times: int = 1
) -> None:
    """Rotations, the rotated files read and removed as soon as they are let go of: nothing goes wrong."""
    workers, quiet = server.workers(), server.stderr()
    keep_alive = worker_class not in ("sync", "tornado")
    with Load(server.socket, 8 if keep_alive else 1, requests_each=10**9 if keep_alive else 1) as load:
        for _ in range(rotations):
            load.wait_for_answers(10)
            server.rotate(target=target, times=times)
            server.logs.take()
        load.wait_for_answers(10)
    load.expect_unbroken()
    server.logs.expect_exactly_once(load.requests, names(worker_class))
    server.expect_same_workers(workers, "in rotations")
    server.expect_silence(quiet, "in rotations")
    assert "Traceback" not in server.complaints()


@classes("sync", "gthread", "asgi", "gevent", "uvicorn.workers.UvicornWorker")
@pytest.mark.parametrize("rotations", [5, pytest.param(200, marks=pytest.mark.full)])
def test_every_line_once(gunicorn: Gunicorn, worker_class: str, rotations: int) -> None:
    options = ["--capture-output"] * (rotations > 5)
    with gunicorn.serve(worker_class, *options, workers=2) as server:
        rotate_under_load(server, worker_class, rotations)


@classes("gthread", without=["uvicorn.workers.UvicornWorker"])
def test_pristine_loses_the_root_loggers(pristine: Gunicorn, worker_class: str) -> None:
    with pristine.serve(worker_class) as server:
        server.reopening = wait.Patience(0.5)
        with pytest.raises(Broken, match="1 of 2 processes still wrote to a rotated application.log"):
            rotate_under_load(server, worker_class, 1)


def test_files_that_no_logger_has(gunicorn: Gunicorn) -> None:
    """Behind a queue, in a memory handler, and of the application's own."""
    handlers = [Handler(place=place) for place in ("queue", "memory", "nowhere")]
    with gunicorn.serve(variables=Case(tuple(handlers)).variables) as server:
        logs = [handler.log(n) for n, handler in enumerate(handlers)]
        server.get()
        server.rotate(logs)
        request = server.get()
        wait.until(
            lambda: all(server.logs.requests(name, current_only=True)[request] for name in logs),
            lambda: f"only {[name for name in logs if server.logs.requests(name, current_only=True)]} have a request",
        )


def rotate_during_request(server: Server, kind: str) -> None:
    """All processes let go while a request is held, and it is answered."""
    with server.hold("id-held") as hold, Client(server.socket) as client:
        client.send(kind, "id-held")
        hold.reached()
        server.rotate()
        hold.release()
        client.answer()


def write_to_wsgi_errors(server: Server) -> None:
    """In a request that has begun before a rotation."""
    rotate_during_request(server, "errors")
    assert "written late by id-held" in server.logs.lines("error.log", current_only=True)


@classes("gthread", without=["asgi", "uvicorn.workers.UvicornWorker", "tornado", AIOHTTPS])
def test_wsgi_errors(gunicorn: Gunicorn, worker_class: str) -> None:
    with gunicorn.serve(worker_class) as server:
        write_to_wsgi_errors(server)


def test_pristine_breaks_who_writes_to_wsgi_errors(pristine: Gunicorn) -> None:
    with (
        pristine.serve("gthread", variables={"LOGGED_BY": "named"}) as server,
        pytest.raises(Unanswered, match="500 Internal Server Error"),
    ):
        write_to_wsgi_errors(server)


def test_no_rotation_truncates_nothing(gunicorn: Gunicorn) -> None:
    """A file of mode "w" would be, each time that it is opened."""
    with gunicorn.serve(variables={"APPLICATION_LOG_MODE": "w"}) as server:
        request = server.get()
        server.signal("arbiter", times=2)
        server.rotate(["error.log"])
        assert server.logs.requests("application.log")[request] == 1


@classes("asgi", without=["gevent", "eventlet"])
def test_blocked(gunicorn: Gunicorn, worker_class: str) -> None:
    """While a request blocks a worker, or its event loop; gevent's and eventlet's wait for it to yield."""
    with gunicorn.serve(worker_class) as server:
        rotate_during_request(server, "block")


def reload(server: Server) -> None:
    """SIGHUP, which most configurations of logrotate send: a worker that is still busy lets go, too."""
    with server.hold("id-held") as hold, Client(server.socket) as client:
        [worker] = server.workers()
        client.send("async", "id-held")
        hold.reached()
        server.logs.rotate()
        server.signal("arbiter", signal.SIGHUP)
        server.wait_until_reopened([server.arbiter, worker])
        assert worker in server.workers(), "it has ended before its request was answered"
        hold.release()
        client.answer()


@classes("gthread", without=["uvicorn.workers.UvicornWorker"])
def test_reload(gunicorn: Gunicorn, worker_class: str) -> None:
    with gunicorn.serve(worker_class) as server:
        reload(server)


def test_reload_of_uvicorns_worker() -> None:
    """It handles SIGTERM itself, so its own patch is needed, too."""
    patched = f"gunicorn {NEWEST}", f"uvicorn {uvicorn(NEWEST)}"
    environment = environments.patched_until_exit(pristine_environment(NEWEST), *patched)
    with Gunicorn(NEWEST, environment).serve("uvicorn.workers.UvicornWorker") as server:
        reload(server)


DIRTY = """
import logging, os
from gunicorn.dirty.app import DirtyApp

class Application(DirtyApp):
    def init(self):
        logging.getLogger("dirty").addHandler(logging.FileHandler("logs/dirty.log"))
        with open("control/dirty", "w") as file:
            file.write(str(os.getpid()))
"""


def test_dirty_workers(gunicorn: Gunicorn) -> None:
    """The arbiter passes the signal on to their arbiter, which passed it on to nobody."""
    if Version(gunicorn.release) < Version("25"):
        pytest.skip(f"Gunicorn {gunicorn.release} has no dirty workers")
    options = ("--dirty-workers", "1", "--dirty-app", "dirty:Application")
    with gunicorn.serve("sync", *options, modules={"dirty": DIRTY}) as server:
        noted = server.control / "dirty"
        wait.until(lambda: noted.exists() and noted.read_text(), lambda: f"no dirty worker: {server.last_words()}")
        worker = int(noted.read_text())
        for _ in range(3):
            server.logs.rotate([*NAMES, "dirty.log"])
            server.signal("arbiter")
            server.wait_until_reopened([*server.pids("all"), worker, parent(worker)])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
