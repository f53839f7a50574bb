"""A Gunicorn of root's, whose workers may not create what it creates."""

import functools
import os
import re
import subprocess
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from properties.clients import Client, new_request
from properties.conftest import expect_gunicorns_patch
from properties.environment import Environment
from properties.expect import BREAKS, Unanswered, expect
from properties.server import NOBODY, SERVED, Server


@pytest.fixture
def server(environment: Environment, worker_class: str) -> Iterator[Server]:
    """One whose worker may write to the application's log, but create nothing beside the other two."""
    if os.geteuid() != 0:
        pytest.skip("only root can start Gunicorn with --user")
    expect_gunicorns_patch(environment)
    server = Server(environment.python, worker_class, 1, ["--user", str(NOBODY)])
    server.let_others_in()
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
    """With --user, workers that may not create the new log reopen it all the same, and break no request."""
    for names in (["access.log"], ["access.log", "error.log"]):
        before = [owner(server, name) for name in names]
        server.logs.rotate(names)
        server.signal("arbiter")
        answered = requests(server, 50)
        server.logs.expect_exactly_once(answered, ["access.log", "error.log"])
        server.reopening.until(
            lambda: not server.logs.held(server.pids("all"), server.logs.rotated()),
            lambda: f"{server.logs.holders(server.pids('all'))} {server.reopening} after SIGUSR1",
        )
        server.logs.expect_in_new_files(requests(server, 1), names)
        after = [owner(server, name) for name in names]
        expect(after == before, f"a new log has owner, group and mode {after}, not {before}")


def owner(server: Server, name: str) -> Tuple[int, int, str]:
    status = server.logs.path(name).stat()
    return status.st_uid, status.st_gid, oct(status.st_mode)


def requests(server: Server, number: int) -> List[str]:
    """The names of so many requests; raises Broken if one of them was."""
    answered: List[str] = []
    ended = len(server.exits())
    for n in range(1, number + 1):
        request = new_request()
        try:
            with Client(server.socket) as client:
                client.get("async", request)
            answered.append(request)
        except Unanswered as error:
            said = f"request {n} of {number} was broken under --user: {error}"
            expect_unread(server, request, ended + n - len(answered), said)
    return answered


def expect_unread(server: Server, request: str, ends: int, said: str) -> None:
    """A worker that ends, for whatever reason, closes the connection whose request it has not read: uvicorn does."""
    application_log = Path(server.variables["APPLICATION_LOG"]).read_text()
    expect(not re.search(rf"\b{request}\b", application_log), said, BREAKS)
    server.reopening.until(lambda: len(server.exits()) >= ends, lambda: said, BREAKS)
