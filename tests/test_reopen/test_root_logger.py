"""An application that logs to a file through the root logger: what only gunicorn can mend, patches/gunicorn."""

import signal

import environments
import pytest
from environments import Environment
from properties.clients import Load
from properties.server import Server

from test_reopen.conftest import GUNICORN, UVICORN_WORKER, WORKER_CLASSES, make
from test_reopen.logrotation import Logrotate, files, reopen


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The newest patched uvicorn with the newest patched gunicorn."""
    made = make(tmp_path_factory.mktemp("root"))
    environments.patched(made, "gunicorn", GUNICORN)
    return made


def serve(environment: Environment, worker_class: str, *options: str) -> Server:
    options = ("--pid", "pidfile", *options)
    return Server(environment.python, worker_class, options=options, variables={"LOGGED_BY": "root"})


@pytest.mark.parametrize("worker_class", WORKER_CLASSES[:2])
def test_every_line_once(patched: Environment, worker_class: str) -> None:
    with serve(patched, worker_class) as server:
        logrotate = Logrotate(server.logs, [server.directory / "pidfile"])
        with Load(server.socket, 8) as load:
            for _ in range(5):
                load.wait_for_answers(16)
                logrotate.rotate()
            load.wait_for_answers(16)
        server.logs.expect_exactly_once(load.requests)
        assert server.logs.requests("application.log", current_only=True)


def test_a_rotation_during_boot(patched: Environment) -> None:
    """With --preload a worker inherits the root logger's file; the patched uvicorn catches up on it too."""
    with serve(patched, UVICORN_WORKER, "--preload") as server, server.hold("post_fork") as hold:
        server.signal("arbiter", signal.SIGTTIN)
        hold.reached()
        server.logs.rotate()
        server.signal("arbiter")
        server.wait_until_reopened([server.arbiter])
        hold.release()
        server.wait_until_reopened(server.pids("all"))


@pytest.mark.parametrize("worker_class", ["asgi"])  # uvicorn's patch reopens them by itself
def test_pristine_gunicorn_loses_them(environment: Environment, worker_class: str) -> None:
    with serve(environment, worker_class) as server:
        server.logs.rotate()
        answer = reopen("-t", 1, server.directory / "pidfile")
        assert answer.returncode == 1
        assert files(answer.stderr) == {"application.log.000001"}
        request = server.get()
        assert request in server.logs.requests("error.log", current_only=True)
        assert request not in server.logs.requests("application.log", current_only=True)
