"""The first commit for Gunicorn alone, with published uvicorn: what maintainers get who take no other."""

import shutil
import signal
from pathlib import Path
from typing import Sequence

import environments
import pytest
from environments import Environment
from properties.clients import Load
from properties.environment import GEVENT, GTHREAD, SYNC
from properties.expect import Broken
from properties.server import Server

from test_upstream.test_upstream import Commit, git, newest, repository

UVICORN = "uvicorn.workers.UvicornWorker"
FIRST = Commit("gunicorn", 1)
ROTATIONS = 200


def published() -> Environment:
    gunicorn, uvicorn = (newest(name).releases[-1] for name in ("gunicorn", "uvicorn"))
    packages = [*environments.packages(uvicorn, f"gunicorn=={gunicorn}"), "gevent", "packaging", "websockets"]
    return environments.cached(environments.pythons_for(uvicorn)[-1], *packages)


def wrong(environment: Environment, worker_class: str) -> Sequence[object]:
    """
    What goes wrong under full load, with two signals to each process for each rotation, until a file is kept.

    A rotated file is read and removed when nobody has it open any more.
    """
    with Server(environment.python, worker_class, options=["--capture-output"]) as server:
        workers, quiet = server.workers(), server.stderr()
        with Load(server.socket, 16) as load:
            for _ in range(ROTATIONS):
                try:
                    load.wait_for_answers(1)
                    server.logs.rotate()
                    server.signal("all", times=2)
                    server.wait_until_reopened(server.pids("all"))
                except Broken as problem:
                    load.stopping = True
                    server.signal("workers", signal.SIGKILL)  # Or clients would wait for one that hangs
                    return [problem]
                server.logs.take()
        print(f"{worker_class}: {len(load.requests)} requests, {server.logs.rotations} rotations")
        lines = server.logs.not_exactly_once(load.requests)
        found = [
            lines,
            load.broken,
            server.deaths(),
            set(server.workers()) ^ set(workers),
            server.stderr()[len(quiet) :],
        ]
        return [one for one in found if one]


@pytest.mark.full
@pytest.mark.parametrize("worker_class", [UVICORN, SYNC, GTHREAD, GEVENT])
def test_loses_nothing(worker_class: str, tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree", FIRST.distribution, FIRST.mails)
    shutil.copytree(published().path, tmp_path / "venv", symlinks=True)
    for changed in git(tree, "diff", "--name-only", "published", "--", "gunicorn").split():
        [file] = (tmp_path / "venv").glob(f"lib/python3.*/site-packages/{changed}")
        file.unlink()  # It is linked to the installer's cache
        shutil.copy(tree / changed, file)
    assert not wrong(published()._replace(path=tmp_path / "venv"), worker_class)


@pytest.mark.full
@pytest.mark.parametrize("worker_class", [UVICORN, SYNC, GTHREAD])  # gevent's leaves the signal to a greenlet
def test_published_does(worker_class: str) -> None:
    found = wrong(published(), worker_class)
    print(found)
    assert found
