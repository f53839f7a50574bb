"""logrotate with the report's configuration, compressing at once, and reopen.sh as postrotate."""

import os
import re
import signal
import threading
from typing import Sequence, Union

import pytest
from environments import Environment
from properties import wait
from properties.clients import Client, Load, new_request
from properties.logs import NAMES
from properties.server import Server

from test_reopen.conftest import UVICORN_WORKER, gunicorn
from test_reopen.logrotation import REOPEN, Logrotate
from test_reopen.nginx import Nginx

DIRECTIVES = ("", "sharedscripts", "extension .log", "olddir old", "sharedscripts\nextension .log")

#: Which directives with which worker class: each once by default, all with all by --full.
COMBINATIONS = [
    pytest.param(worker_class, directives, marks=() if worker_class == UVICORN_WORKER else pytest.mark.full)
    for worker_class in (UVICORN_WORKER, "asgi", "gthread")
    for directives in (*DIRECTIVES, "sharedscripts\nolddir old")
]


def rotate_under_load(
    server: Union[Server, Nginx], rotations: int, directives: str = "", prefix: Sequence[str] = ()
) -> Load:
    """prefix is a command that runs logrotate."""
    logrotate = Logrotate(server.logs, [server.directory / "pidfile"], directives=directives)
    with Load(server.socket, 16) as load:
        for _ in range(rotations):
            load.wait_for_answers(16)
            logrotate.rotate(prefix)
        load.wait_for_answers(16)
    return load


@pytest.mark.parametrize("worker_class, directives", COMBINATIONS)
def test_every_line_once(environment: Environment, worker_class: str, directives: str, rotations: int) -> None:
    """Under full load nothing is lost, nothing is doubled, and gzip has nothing to say."""
    with gunicorn(environment, worker_class) as server:
        load = rotate_under_load(server, rotations, directives)
        assert not load.broken
        assert not server.exits()
        server.logs.expect_exactly_once(load.requests)
        assert server.stderr() == ""


@pytest.mark.parametrize("directives", ["", "sharedscripts"])
@pytest.mark.parametrize("files", ["", '"$1"', '"$1"-[0-9]*'])
def test_every_line_once_by_other_postrotates(server: Server, directives: str, files: str) -> None:
    """With sharedscripts, $1 is the pattern and a blank. Then nothing has the name of the last one."""
    postrotate = f"'{REOPEN}' '{server.directory}/pidfile' {files}"
    logrotate = Logrotate(server.logs, postrotate=postrotate, directives=directives)
    with Load(server.socket, 16) as load:
        for _ in range(5):
            load.wait_for_answers(16)
            logrotate.rotate()
    assert not load.broken
    server.logs.expect_exactly_once(load.requests)


@pytest.mark.root
@pytest.mark.parametrize("directives", ["", pytest.param("sharedscripts", marks=pytest.mark.full)])
def test_every_line_once_with_nginx(directives: str, rotations: int) -> None:
    with Nginx() as server:
        load = rotate_under_load(server, rotations, directives)
        assert not load.broken
        server.logs.expect_exactly_once(load.requests, ["access.log"])


def test_every_line_once_of_two_servers_with_one_log(environment: Environment, rotations: int) -> None:
    """Both write to the access log of the first, and logrotate waits for both."""
    second = gunicorn(environment)
    with gunicorn(environment) as first:
        second.command[-1:-1] = ["--access-logfile", str(first.logs.path("access.log"))]
        with second, Load(second.socket, 4) as other:
            logrotate = Logrotate(first.logs, ["-p", second.directory / "pidfile", first.directory / "pidfile"])
            with Load(first.socket, 12) as load:
                for _ in range(rotations):
                    load.wait_for_answers(16)
                    logrotate.rotate()
            other.wait_for_answers(16)
        assert not load.broken + other.broken
        first.logs.expect_exactly_once(load.requests)
        first.logs.expect_exactly_once(other.requests, ["access.log"])


def test_every_line_once_while_workers_come_and_go(server: Server, rotations: int) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU:
                os.kill(server.arbiter, number)
                stop.wait(0.5)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        load = rotate_under_load(server, rotations // 2)
    finally:
        stop.set()
        churning.join()
    assert len(server.exits()) >= rotations / 10
    assert not [death for death in server.deaths() if "SIGTERM" not in death and "exited with 0" not in death]
    server.logs.expect_exactly_once(load.requests)


def test_a_stopped_worker_is_named_and_the_file_kept(server: Server) -> None:
    logrotate = Logrotate(server.logs, ["-t", 0, server.directory / "pidfile"])
    request = server.get()
    stopped, other = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    try:
        answer = logrotate.run()
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert answer.returncode == 1
    kept = list(server.logs.directory.glob("*.log-*"))
    assert sorted(file.name.split("-")[0] for file in kept) == sorted(NAMES)
    assert not [file for file in kept if file.suffix == ".gz"]
    for file in kept:
        assert re.search(rf"process {stopped} \([\w, ]+\): {re.escape(str(file))}\n", answer.stdout)
    assert f"process {other} " not in answer.stdout
    assert not server.logs.not_exactly_once([request])
    following = server.get()
    Logrotate(server.logs, [server.directory / "pidfile"]).rotate()
    assert not server.logs.not_exactly_once([request, following]), "the next rotation overwrites what was kept"


def test_the_line_of_a_blocked_worker_is_waited_for(server: Server) -> None:
    logrotate = Logrotate(server.logs, [server.directory / "pidfile"])
    server.get()  # An empty file is not rotated
    request = new_request()
    with Client(server.socket) as client, server.hold(request) as hold:
        client.send("block", request)
        hold.reached()
        rotation = threading.Thread(target=logrotate.run)
        rotation.start()
        wait.until(server.logs.path("access.log").exists, lambda: "the arbiter did not reopen its files")
        hold.release()
        client.answer()
        rotation.join()
    logrotate.unpack()
    assert not server.logs.not_exactly_once([request])


def test_without_waiting_lines_are_lost(environment: Environment) -> None:
    """The tests above can fail: this is what a postrotate does that only sends the signal."""
    with gunicorn(environment, "gthread") as server, server.hold("post_fork") as hold:
        logrotate = Logrotate(server.logs, postrotate=f'kill -USR1 "$(cat {server.directory}/pidfile)"')
        server.signal("workers", signal.SIGKILL)
        wait.until(lambda: len(hold.marks()) == 2, lambda: "no new workers came up")
        answer = logrotate.run()  # Gunicorn, which is pristine here, swallows the signal at that place
        # By chance gzip complains: that the arbiter logged the signal while it compressed that log.
        assert answer.returncode == 0, answer.stdout
        server.signal("arbiter", signal.SIGWINCH)  # Of two signals that wait, the one with the lower number comes first
        said = "Handling signal: winch"
        wait.until(lambda: said in "".join(server.logs.lines("error.log")), lambda: "the arbiter does not say so")
        hold.release()
        server.wait_until_serving()
        request = server.get()
        logrotate.unpack()
        assert len(server.logs.not_exactly_once([request], ["error.log"])) == 1
