import os
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator, List, Optional

import environments
import pytest
from environments import Environment
from properties.server import Server

from test_reopen.logrotation import found
from test_reopen.nginx import Nginx

#: Like a worker that has changed its user.
NOT_DUMPABLE = """
import ctypes

PR_SET_DUMPABLE = 4
assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
"""

UVICORN_WORKER = "uvicorn.workers.UvicornWorker"
WORKER_CLASSES = [UVICORN_WORKER, *(pytest.param(one, marks=pytest.mark.full) for one in ("asgi", "gthread"))]


@pytest.fixture(scope="session", autouse=True)
def applets() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as applets, pytest.MonkeyPatch.context() as patch:
        os.chmod(applets, 0o755)
        subprocess.run(["busybox", "--install", "-s", applets], check=True)
        patch.setenv("APPLETS", applets)
        yield


def make(directory: Path, python: Optional[environments.Version] = None) -> Environment:
    """A new environment with the newest patched uvicorn and the newest gunicorn, pristine."""
    packages = environments.packages(environments.NEWEST, f"gunicorn=={environments.GUNICORN}")
    original = environments.cached(python or max(environments.pythons()), *packages)
    return environments.patched_copy(original, directory / "environment", "uvicorn", environments.NEWEST)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make(tmp_path_factory.mktemp("reopen"))


@pytest.fixture
def server(environment: Environment) -> Iterator[Server]:
    with gunicorn(environment) as server:
        yield server


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    with Nginx() as server:
        (server.logs.directory / "old").mkdir()
        yield server


@pytest.fixture
def rotations(request: pytest.FixtureRequest) -> int:
    return 200 if request.config.getoption("--full") else 5


def gunicorn(environment: Environment, worker_class: str = UVICORN_WORKER, more_application: str = "") -> Server:
    """Gunicorn with a pidfile; more_application is the source of what the application does besides."""
    options = ("--pid", "pidfile")
    return Server(environment.python, worker_class, options=options, variables={"ON_LOAD": more_application})


def without_ptrace() -> List[str]:
    """A command that runs another one as Docker does: root may not look into processes of others."""
    return [found("setpriv"), "--bounding-set=-sys_ptrace"] if os.geteuid() == 0 else []
