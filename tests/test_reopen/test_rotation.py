"""logrotate with the report's configuration, compressing at once, and reopen.sh as postrotate."""

import os
import re
import signal
import threading
from typing import Union

import pytest
from environments import Environment
from properties import wait
from properties.clients import Client, Load, new_request
from properties.logs import NAMES
from properties.server import Server

from test_reopen.conftest import WORKER_CLASSES, gunicorn
from test_reopen.logrotation import Logrotate, wait_until_exactly_once
from test_reopen.nginx import Nginx


@pytest.fixture
def rotations(request: pytest.FixtureRequest) -> int:
    return 300 if request.config.getoption("--full") else 6


def rotate_under_load(server: Union[Server, Nginx], rotations: int, allowed: str = "") -> Load:
    logrotate = Logrotate(server.logs, [server.directory / "pidfile"])
    with Load(server.socket, 16) as load:
        for _ in range(rotations):
            load.wait_for_answers(16)
            logrotate.rotate(allowed)
        load.wait_for_answers(16)
    return load


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_every_line_once(environment: Environment, worker_class: str, rotations: int) -> None:
    """Under full load nothing is lost, nothing is doubled, and gzip has nothing to say."""
    with gunicorn(environment, worker_class) as server:
        load = rotate_under_load(server, rotations)
        assert not load.broken
        assert not server.exits()
        wait_until_exactly_once(server.logs, load.requests)
        assert server.stderr() == ""


@pytest.mark.root
def test_every_line_once_with_nginx(rotations: int) -> None:
    with Nginx() as server:
        load = rotate_under_load(server, rotations)
        assert not load.broken
        wait_until_exactly_once(server.logs, load.requests, ["access.log"])


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
        # All workers that had the file may have ended by then.
        load = rotate_under_load(server, rotations // 2, "reopen.sh: found no rotated file of this server")
    finally:
        stop.set()
        churning.join()
    assert len(server.exits()) >= rotations / 10
    assert not [death for death in server.deaths() if "SIGTERM" not in death and "exited with 0" not in death]
    wait_until_exactly_once(server.logs, load.requests)


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
        assert re.search(rf"process {stopped} \(\w+\): {re.escape(str(file))}\n", answer.stdout)
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


def test_without_waiting_lines_are_lost(server: Server) -> None:
    """The tests above can fail: this is what a postrotate does that only sends the signal."""
    logrotate = Logrotate(server.logs, postrotate=f'kill -USR1 "$(cat {server.directory}/pidfile)"')
    with server.hold("post_fork") as hold:  # Gunicorn swallows the signal there
        server.signal("workers", signal.SIGKILL)
        worker = hold.reached()
        answer = logrotate.run()
    server.wait_until_serving()
    # By chance gzip complains: that the arbiter logged the signal while it compressed that log.
    assert answer.returncode == 0, answer.stdout
    logrotate.unpack()
    assert not [line for line in server.logs.lines("error.log") if f"boot-load {worker}" in line]
