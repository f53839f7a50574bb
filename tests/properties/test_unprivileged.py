"""A Gunicorn of root's, whose workers may not create what it creates."""

import functools
import os
import subprocess
from pathlib import Path
from typing import Iterator, List

import pytest

from properties.environment import Environment
from properties.expect import BREAKS, Broken, Unanswered
from properties.server import SERVED, Server

NOBODY = 65534


@pytest.fixture
def server(environment: Environment, worker_class: str) -> Iterator[Server]:
    """One whose worker may write to the application's log, but create nothing beside the other two."""
    if os.geteuid() != 0:
        pytest.skip("only root can start Gunicorn with --user")
    server = Server(environment.python, worker_class, 1, ["--user", str(NOBODY)])
    server.variables["APPLICATION_LOG"] = str(server.control / "application.log")
    server.directory.chmod(0o755)
    server.control.chmod(0o777)
    events = server.control / "events"  # The arbiter would be the first to write to it
    events.touch()
    events.chmod(0o666)
    if not may_import(environment.python, SERVED, server.control):
        server.discard()
        pytest.skip(
            f"the user nobody may not read what a worker needs of {environment.path}, {SERVED} or {server.directory}"
        )
    with server:
        yield server


def may_import(python: Path, *directories: Path) -> bool:
    code = "import os, sys, gunicorn; print(*map(os.listdir, sys.argv[1:]))"
    become = functools.partial(os.setuid, NOBODY)
    command = [str(python), "-I", "-B", "-W", "ignore", "-c", code, *map(str, directories)]
    try:
        return subprocess.call(command, preexec_fn=become, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except PermissionError:  # For the interpreter itself
        return False


def test_unprivileged(server: Server) -> None:
    """Under --user a rotation without create, which workers may not follow, breaks no request, and they come to it."""
    for names in (["access.log"], ["access.log", "error.log"]):
        server.logs.rotate(names)
        server.signal("arbiter")
        answered = requests(server, 50)
        server.logs.expect_exactly_once(answered, ["access.log", "error.log"])
        server.reopening.until(
            lambda: not server.logs.held(server.pids("all"), server.logs.rotated()),
            lambda: f"{server.logs.holders(server.pids('all'))} {server.reopening} after SIGUSR1",
        )
        server.logs.expect_in_new_files(requests(server, 1), names)


def requests(server: Server, number: int) -> List[str]:
    """The names of so many requests; raises Broken if one of them was."""
    answered: List[str] = []
    for n in range(1, number + 1):
        try:
            answered.append(server.get())
        except Unanswered as error:
            raise Broken(f"request {n} of {number} was broken under --user: {error}", BREAKS) from error
    return answered
