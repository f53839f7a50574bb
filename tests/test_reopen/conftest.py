import os
import subprocess
from typing import Any, Iterator, List, Union

import environments
import psutil
import pytest
from environments import NEWEST, Environment
from properties.server import Server

from test_reopen.logrotation import reopen
from test_reopen.nginx import Nginx, run_nginx

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
UVICORN_WORKER = "uvicorn.workers.UvicornWorker"
WORKER_CLASSES = [UVICORN_WORKER, *(pytest.param(one, marks=pytest.mark.full) for one in ("asgi", "gthread"))]


@pytest.fixture(scope="session", autouse=True)
def applets() -> Iterator[None]:
    with environments.open_directory() as applets, pytest.MonkeyPatch.context() as patch:
        subprocess.run(["busybox", "--install", "-s", applets], check=True)
        patch.setenv("APPLETS", str(applets))
        yield


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The newest patched uvicorn and the newest gunicorn, pristine; if possible, one that anybody may run."""
    python = environments.for_anybody(environments.pythons())[-1]
    packages = environments.packages(NEWEST, f"gunicorn=={environments.GUNICORN}")
    return environments.patched_until_exit(environments.cached(python, *packages), f"uvicorn {NEWEST}")


@pytest.fixture
def server(environment: Environment) -> Iterator[Server]:
    with gunicorn(environment) as server:
        yield server


@pytest.fixture
def nginx() -> Iterator[Nginx]:
    with run_nginx() as server:
        yield server


@pytest.fixture
def rotations(request: pytest.FixtureRequest) -> int:
    return 200 if request.config.getoption("--full") else 5


def gunicorn(environment: Environment, worker_class: str = UVICORN_WORKER, more_application: str = "") -> Server:
    """Gunicorn with a pidfile; more_application is the source of what the application does besides."""
    options = ("--pid", "pidfile")
    return Server(environment.python, worker_class, options=options, variables={"ON_LOAD": more_application})


def everybody(server: Union[Server, Nginx]) -> List[int]:
    """The arbiter or master, and all below it."""
    return [server.process.pid, *(child.pid for child in psutil.Process(server.process.pid).children(recursive=True))]


def rotate_and_reopen(server: Server, *arguments: object, **how: Any) -> None:
    """Rotate the logs, by hand: then reopen.sh, with its pidfile, makes everybody let go of them."""
    server.logs.rotate()
    reopen(*arguments, server.directory / "pidfile", **how).expect_silence()
    assert not server.logs.held(everybody(server), server.logs.rotated())
