"""Logs that cannot be reopened, and whose the new ones are."""

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from properties import wait
from properties.logs import NAMES
from properties.server import SERVED, Server
from test_reopen.logrotation import wait_until_exactly_once

from test_gunicorn.conftest import Gunicorn, classes

NOBODY = 65534


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
        told = f"Failed to reopen {server.logs.path(name)}"
        wait.until(lambda: any(told in line for line in server.logs.lines("error.log")), lambda: "it is not told")
        if name == "error.log" and not options:
            wait.until(lambda: "IsADirectoryError" in server.stderr(), lambda: "it is not told on stderr")
        server.signal("arbiter")
        server.wait_until_reopened(processes)
        wait_until_exactly_once(server.logs, [request, server.get()])
        assert server.pids("all") == processes, "arbiter and worker are the same"


RAISING = """
from gunicorn.glogging import Logger

class Raising(Logger):
    def reopen_files(self):
        super().reopen_files()
        raise RuntimeError("no way")
"""


def test_arbiter_survives(gunicorn: Gunicorn) -> None:
    with gunicorn.serve("gthread", "--logger-class", "raising.Raising", modules={"raising": RAISING}) as server:
        for _ in range(2):
            server.logs.rotate()
            server.signal("arbiter")
            server.wait_until_reopened(server.pids("all"))
        wait_until_exactly_once(server.logs, [server.get()])


@pytest.fixture
def unprivileged() -> None:
    assert os.geteuid() == 0, "only root can start Gunicorn with --user"


def user_server(gunicorn: Gunicorn, worker_class: str, *options: str) -> Server:
    """A server of root's whose workers are nobody's, and may write to what is theirs, but create nothing beside it."""
    server = gunicorn.serve(worker_class, "--user", str(NOBODY), *options)
    server.directory.chmod(0o755)
    server.control.chmod(0o777)
    for file in (server.control / "events", server.control / "application.log"):
        file.touch()
        file.chmod(0o666)
    server.variables["APPLICATION_LOG"] = str(server.control / "application.log")
    command = [str(gunicorn.environment.python), "-c", "import os, sys; [os.listdir(name) for name in sys.argv[1:]]"]
    directories = [str(gunicorn.environment.path), str(SERVED), str(server.directory)]
    subprocess.run([*command, *directories], user=NOBODY, check=True)
    return server


@classes("sync", "uvicorn.workers.UvicornWorker", without=["tornado"])
def test_user(unprivileged: None, gunicorn: Gunicorn, worker_class: str) -> None:
    """A new file is the user's as the first one was; not so, and each request hangs or fails (uvicorn's patch ends
    such workers, this one keeps them)."""
    with user_server(gunicorn, worker_class) as server:
        workers = server.workers()
        for names in (["access.log"], ["access.log", "error.log"]):
            rotated = [Path(server.logs.path(name)).stat() for name in names]
            server.logs.rotate(names)
            server.signal("arbiter")
            requests = [server.get() for _ in range(50)]
            server.wait_until_reopened(server.pids("all"))
            wait_until_exactly_once(server.logs, requests, ["access.log", "error.log"])
            for name, old in zip(names, rotated):
                new = server.logs.path(name).stat()
                assert (new.st_uid, new.st_gid, new.st_mode) == (old.st_uid, old.st_gid, old.st_mode)
        server.expect_same_workers(workers, "under --user")


def test_a_link_is_not_followed(unprivileged: None, gunicorn: Gunicorn) -> None:
    """The user, whose directory it may be, must not have root give away a file elsewhere."""
    with user_server(gunicorn, "sync") as server:
        server.logs.rotate(["access.log"])
        server.logs.path("access.log").symlink_to(server.directory / "elsewhere")
        server.signal("arbiter")
        until(lambda: (server.directory / "elsewhere").exists(), server)
        assert (server.directory / "elsewhere").stat().st_uid == 0
