import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Union

import environments
import psutil
import pytest
from environments import GUNICORN, NEWEST, UVICORN
from properties import wait
from properties.logs import Logs, settling
from properties.server import Server
from test_gunicorn.conftest import pristine_environment

from test_reopen.logrotation import SHELLS, reopen

NGINX = """
daemon off;
worker_processes 2;
pid pidfile;
events {}
http {
    access_log logs/access.log;
    client_body_temp_path temporary;
    proxy_temp_path temporary;
    fastcgi_temp_path temporary;
    uwsgi_temp_path temporary;
    scgi_temp_path temporary;
    keepalive_requests 1000000000;
    server {
        listen unix:socket;
        location / { return 200 "ok\\n"; }
    }
}
"""

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Nginx(NamedTuple):
    directory: Path
    logs: Logs
    process: "subprocess.Popen[bytes]"
    socket: Path


@contextlib.contextmanager
def run_nginx(user: Optional[int] = None) -> Iterator[Nginx]:
    with tempfile.TemporaryDirectory(prefix="usr1-nginx-") as name:
        directory = Path(name)
        logs = Logs(directory / "logs", settling)
        pidfile = directory / "pidfile"
        (directory / "nginx.conf").write_text(NGINX)
        if user is not None:
            for path in (directory, logs.directory):
                os.chown(path, user, user)
        command = ["nginx", "-p", name, "-c", "nginx.conf", "-e", "logs/error.log"]
        command += ["-g", "user root;"] if os.geteuid() == 0 and user is None else []
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, user=user)
        try:
            # It listens before it writes this.
            wait.until(lambda: pidfile.exists() and pidfile.read_text(), lambda: f"nginx ended: {process.poll()}")
            yield Nginx(directory, logs, process, directory / "socket")
        finally:
            process.terminate()
            process.wait(wait.PATIENCE)


@pytest.fixture(scope="session", autouse=True)
def applets() -> Iterator[None]:
    with environments.open_directory() as applets, pytest.MonkeyPatch.context() as patch:
        subprocess.run(["busybox", "--install", "-s", applets], check=True)
        patch.setenv("APPLETS", str(applets))
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    with gunicorn() as server:
        yield server


@pytest.fixture
def nginx() -> Iterator[Nginx]:
    with run_nginx() as server:
        yield server


@pytest.fixture(params=environments.parameters(SHELLS, SHELLS[:1]))
def shell(request: pytest.FixtureRequest) -> str:
    """For what takes longer: all of them only with --full."""
    return str(request.param)


@pytest.fixture
def rotations(request: pytest.FixtureRequest) -> int:
    return 200 if request.config.getoption("--full") else 5


def gunicorn(worker_class: str = UVICORN, more_application: str = "") -> Server:
    """With a pidfile, and uvicorn patched; more_application is the source of what the application does besides."""
    environment = environments.patched_until_exit(pristine_environment(GUNICORN), f"uvicorn {NEWEST}")
    options = ("--pid", "pidfile")
    return Server(environment.python, worker_class, options=options, variables={"ON_LOAD": more_application})


def everybody(server: Union[Server, Nginx]) -> List[int]:
    return [server.process.pid, *(child.pid for child in psutil.Process(server.process.pid).children(recursive=True))]


def rotate_and_reopen(server: Server, *arguments: object, **how: Any) -> None:
    server.logs.rotate()
    reopen(*arguments, server.directory / "pidfile", **how).expect_silence()
    assert not server.logs.held(everybody(server), server.logs.rotated())
