"""What the settings and extension points of gunicorn make different."""

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import wait
from properties.clients import Client, Load, new_request
from properties.conftest import Servers
from properties.logs import NAMES
from properties.schedules import storm, targets
from properties.server import Server, send
from properties.target import Target

EXTENDED = ("customised.Extending", "--logger-class", "customised.NotingLogger")


def rotate_and_check(server: Server, target: str = "arbiter") -> None:
    """A rotation loses no line and leaves no process with a rotated file."""
    with Load(server.socket, 2, ["async", "thread"]) as load:
        load.wait_for_answers(5)
        server.logs.rotate()
        server.signal(target)
        server.wait_until_reopened(server.reached_by(target))
        storm(server, load, rotations=10)
    server.wait_until_reopened(server.reached_by("arbiter"))
    assert not server.logs.not_exactly_once(load.requests)


@given(boot=st.booleans(), target=targets)
def test_captured_output(servers: Servers, one_worker_class: str, boot: bool, target: str) -> None:
    """With capture_output what is printed is in the new error log too, after a rotation at boot as well."""
    # The access log goes the same way, by a name that never names a rotated file
    options = ("--capture-output", "--access-logfile", "/dev/stdout")
    with servers.use(one_worker_class, *options, workers=1) as server:
        server.get("print")
        if boot:
            with server.hold("post_fork") as hold:
                server.signal("workers", signal.SIGKILL)
                hold.reached()
                server.logs.rotate(create=True)
                server.signal(target)
            server.wait_until_serving()
        else:
            server.logs.rotate()
            server.signal(target)
            server.wait_until_reopened(server.reached_by(target))
        request = server.get("print")
        for line in (f"printed {request}", f"GET /print/{request}"):
            assert any(line in found for found in server.logs.lines("error.log", current_only=True))
        server.wait_until_reopened(server.workers())


def test_own_files(target: Target, one_worker_class: str) -> None:
    """A file that the application has put in the place of sys.stdout, or of a handler's own, is left alone."""
    variables = {"OWN_OUTPUT": "output", "OWN_FILE": "file"}
    server = Server(target.python, one_worker_class, 1, ["--capture-output"], variables)
    server.logs.path("application.log").touch()
    with server:
        request = server.get("print")
        assert f"printed {request}" in (server.directory / "output").read_text()
        assert request in (server.directory / "file").read_text()


def test_preloaded(target: Target, one_worker_class: str) -> None:
    """With preload_app a boot reopens what was rotated meanwhile, and truncates no other log of mode "w"."""
    with Server(target.python, one_worker_class, 1, ["--preload"], {"APPLICATION_LOG_MODE": "w"}) as server:
        requests = [server.get()]
        for rotated in ([], NAMES):
            with server.hold("post_fork") as hold:
                server.signal("workers", signal.SIGKILL)
                worker = hold.reached()
                server.logs.rotate(rotated, create=True)
                server.signal("workers")
            requests.append(server.get())
            assert not server.logs.held([worker], server.logs.rotated())
            assert not server.logs.not_exactly_once(requests)


def test_unreachable_log(target: Target, one_worker_class: str) -> None:
    """A log that cannot be reopened at boot keeps no other one on its rotated file; the next signal mends it."""
    with Server(target.python, one_worker_class, 1, ["--preload"]) as server:
        access = server.logs.path("access.log")
        with server.hold("post_fork") as hold:
            server.signal("workers", signal.SIGKILL)
            worker = hold.reached()
            server.logs.rotate()
            for name in NAMES:
                server.logs.path(name).touch() if name != access.name else access.mkdir()
        requests = [server.get()]
        assert server.logs.held([worker], server.logs.rotated()) == [
            f"process {worker} still writes to access.log.000001"
        ]
        access.rmdir()
        server.signal("arbiter")
        server.wait_until_reopened(server.pids("all"))
        assert server.workers() == [worker]
        assert not server.logs.not_exactly_once([*requests, server.get()])


def test_extended_handler(servers: Servers, one_worker_class: str) -> None:
    """A subclass that overrides handle_usr1 and calls super(), and a logger class, have their part in it."""
    with servers.use(*EXTENDED, base=one_worker_class, workers=1) as server:
        handled, reopened = server.times("handled"), server.times("reopened")
        rotate_and_check(server)
        assert server.times("handled") > handled
        assert server.times("reopened") > reopened
        audit = (server.control / "audit").read_text()
        assert f"reopened by {server.workers()[0]}\n" in audit, "a file of the logger class's own was taken away"


def test_reported_fix(target: Target, one_worker_class: str) -> None:
    """A subclass with the bug report's own fix in init_signals is lossless."""
    with Server(target.python, "customised.AsReported", 1, variables={"WORKER_CLASS": one_worker_class}) as server:
        before = server.stderr()
        rotate_and_check(server, "workers")
        assert server.stderr() == before


def test_ignored_signal(target: Target, one_worker_class: str) -> None:
    """Where the application ignores SIGUSR1 while it loads, as one must not to die of it, logs are reopened too."""
    with Server(target.python, one_worker_class, 1, variables={"ON_USR1": "ignore"}) as server:
        rotate_and_check(server)


def test_own_handler(target: Target, one_worker_class: str) -> None:
    """An application that sets a handler of its own for SIGUSR1 while it loads keeps it."""
    with Server(target.python, one_worker_class, 1, variables={"ON_USR1": "note"}) as server:
        server.signal("worker")
        wait.until(lambda: server.times("noted"), lambda: "the application's own handler was not called")


def test_own_server(target: Target, one_worker_class: str) -> None:
    """A subclass that serves with uvicorn's own Server still reopens its logs."""
    if not target.has_serve:
        pytest.skip("workers of this release have no _serve to override")
    with Server(target.python, "customised.ServingItself", 1, variables={"WORKER_CLASS": one_worker_class}) as server:
        rotate_and_check(server)


def test_failing_reopening(servers: Servers, one_worker_class: str) -> None:
    """A log that cannot be reopened is told in the error log; the server goes on, and the next rotation mends it."""
    with servers.use(one_worker_class, workers=1) as server:
        [worker], log = server.workers(), server.logs.path("application.log")
        server.logs.rotate(["application.log"])
        log.mkdir()
        server.signal("workers")
        wait.until(
            lambda: any("IsADirectoryError" in line for line in server.logs.lines("error.log")),
            lambda: "nothing in the error log about the log that could not be reopened",
        )
        log.rmdir()
        server.signal("workers")
        server.wait_until_reopened(server.workers())
        assert server.workers() == [worker]
        assert not server.logs.not_exactly_once([server.get()])


def test_coalescing(servers: Servers, one_worker_class: str) -> None:
    """A hundred signals while the event loop is blocked lead to a few reopenings, not to a hundred."""
    with servers.use(*EXTENDED, base=one_worker_class, workers=1) as server:
        request = new_request()
        with server.hold(request) as hold, Client(server.socket) as client:
            client.send("block", request)
            hold.reached()
            before = server.times("reopened")
            server.logs.rotate()
            for _ in range(100):
                server.signal("worker")
                time.sleep(0.001)
            assert server.times("reopened") == before
            hold.release()
            client.answer()
        server.wait_until_reopened(server.workers())
        assert 0 < server.times("reopened") - before <= 3


def test_system_calls(servers: Servers, one_worker_class: str) -> None:
    """SIGUSR1 does not interrupt a system call that C code waits in."""
    with servers.use(*EXTENDED, base=one_worker_class, workers=1) as server:
        fifo, request = server.control / "fifo", new_request()
        os.mkfifo(fifo)
        with Client(server.socket) as client:
            client.send("read", request)
            with open(fifo, "r+b", buffering=0) as writer:  # For reading too, as that does not wait for the other end
                waits_in_read(server.workers()[0])
                server.signal("worker", times=5)
                waits_in_read(server.workers()[0])
                writer.write(b"x")
            assert client.answer() == b"1"
        fifo.unlink()


def waits_in_read(pid: int) -> None:
    calls = Path(f"/proc/{pid}/syscall")
    wait.until(lambda: calls.read_text().split()[0] == "0", lambda: f"process {pid} does not wait in read(2)")


def test_forked_process(target: Target, one_worker_class: str) -> None:
    """A process that the application forks reopens its logs on SIGUSR1s of its own, whatever it is logging."""
    with Server(target.python, one_worker_class, 1, ["--capture-output"]) as server:
        quiet, request = server.stderr(), new_request()
        with server.hold(request) as hold, Client(server.socket) as client:
            child = int(client.get("fork", request))
            assert hold.reached() == child
            for _ in range(300):
                server.logs.rotate(create=True)
                send([child], signal.SIGUSR1)
            server.wait_until_reopened([child])
        wait.until(lambda: server.times("logged"), lambda: "the forked process does not end")
        [[_, number]] = [event for event in server.events() if event[0] == "logged"]
        wanted = Counter(f"{request} line {n} of process {child}" for n in range(1, int(number) + 1))
        for name in ("error.log", "application.log"):
            text = "\n".join(server.logs.lines(name))
            assert Counter(re.findall(rf"{request} line \d+ of process {child}$", text, re.MULTILINE)) == wanted
        assert server.stderr() == quiet
