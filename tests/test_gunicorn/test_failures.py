"""Logs that cannot be reopened, and whose the new ones are."""

import os
from typing import Callable

import environments
import pytest
from environments import NOBODY
from properties import wait
from properties.logs import NAMES
from properties.server import Server

from test_gunicorn.conftest import Gunicorn


def held(server: Server) -> "set[str]":
    """The logs whose rotated files a process has open."""
    lines = server.logs.held(server.pids("all"), server.logs.rotated())
    return {line.split(" to ")[1].split(".log")[0] for line in lines}


def until(what: Callable[[], bool], server: Server) -> None:
    wait.until(what, lambda: f"still held: {held(server)}; {server.complaints()[-500:]}")


@pytest.mark.parametrize("options", [(), ("--capture-output",)], ids=["", "captured"])
@pytest.mark.parametrize("name", NAMES)
def test_one_that_fails(gunicorn: Gunicorn, name: str, options: "tuple[str, ...]") -> None:
    """It keeps no other from being reopened, loses nothing, is told, and is tried again."""
    with gunicorn.serve("gthread", *options) as server:
        processes = server.pids("all")
        server.logs.rotate()
        server.logs.path(name).mkdir()
        server.signal("arbiter")
        until(lambda: held(server) == {name.split(".")[0]}, server)
        request = server.get()
        server.logs.path(name).rmdir()
        told = f"Failed to reopen a log file: [Errno 21] Is a directory: '{server.logs.path(name)}'"
        wait.until(lambda: any(told in line for line in server.logs.lines("error.log")), lambda: "it is not told")
        if name == "error.log" and not options:
            wait.until(lambda: told in server.stderr(), lambda: "it is not told on stderr")
        server.signal("arbiter")
        server.wait_until_reopened(processes)
        server.logs.expect_exactly_once([request, server.get()])
        assert server.pids("all") == processes, "arbiter and worker are the same"


INTERRUPTED_LINES = """
import threading

class Queueing(logging.Handler):
    queue = threading.Lock()  # As in queue.Queue: its thread cannot take it twice

    def emit(self, record):
        with self.queue:
            if record.getMessage().startswith("id-"):
                os.kill(os.getpid(), signal.SIGUSR1)

for name in (None, "gunicorn.error"):
    logging.getLogger(name).addHandler(Queueing())
"""


def test_one_that_fails_in_a_line(gunicorn: Gunicorn) -> None:
    """If a signal interrupts a line, another thread reports the failure: it can wait until the line is written."""
    with gunicorn.serve("sync", variables={"ON_LOAD": INTERRUPTED_LINES}) as server:
        server.logs.path("application.log").rename(server.logs.path("application.log.1"))
        server.logs.path("application.log").mkdir()
        server.get()
        told = "Failed to reopen a log file: [Errno 21] Is a directory"
        wait.until(lambda: any(told in line for line in server.logs.lines("error.log")), lambda: "no report")


ODD_STREAMS = """
class Wrapped:
    def __init__(self, file):
        self.write, self.flush, self.close = file.write, file.flush, file.close

class Wrapping(logging.FileHandler):
    def _open(self):
        return Wrapped(super()._open())

closed = logging.FileHandler("logs/closed.log")
closed.stream.close()
logging.root.addHandler(closed)
logging.getLogger("gunicorn.error").addHandler(Wrapping("logs/wrapped.log"))
"""


def test_closed_stream_and_one_without_descriptor(gunicorn: Gunicorn) -> None:
    """The one is left alone, the other one exchanged as in the published release; and they keep no other from it."""
    with gunicorn.serve("gthread", variables={"ON_LOAD": ODD_STREAMS}) as server:
        processes = server.pids("all")
        server.rotate([*NAMES, "wrapped.log"])
        request = server.get()
        wait.until(
            lambda: server.logs.requests("wrapped.log", current_only=True)[request],
            lambda: f"not reopened: {server.complaints()[-500:]}",
        )
        assert server.pids("all") == processes


def test_a_link_is_not_followed(open_clone: None, gunicorn: Gunicorn) -> None:
    """The user, whose directory it may be, must not have root give away a file elsewhere."""
    if os.geteuid() != 0:
        pytest.skip("only root can start Gunicorn with --user")
    if not environments.is_open(gunicorn.environment.python):
        pytest.skip(f"the user nobody may not run {gunicorn.environment.python.resolve()}")
    server = gunicorn.serve("sync", "--user", str(NOBODY))
    server.let_others_in()
    with server:
        server.logs.rotate(["access.log"])
        server.logs.path("access.log").symlink_to(server.directory / "elsewhere")
        server.signal("arbiter")
        until(lambda: (server.directory / "elsewhere").exists(), server)
        assert (server.directory / "elsewhere").stat().st_uid == 0
