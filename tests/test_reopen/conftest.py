import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List, Optional

import environments
import psutil
import pytest
from bench.subjects import ALONE
from environments import UVICORN
from properties import wait
from properties.server import Server

from test_reopen.logrotation import SHELLS, reopen

NGINX = """
daemon off;
user root;
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


class Nginx(Server):
    """In the place of Gunicorn; as root it runs as a user, if one is given."""

    def __init__(self, user: Optional[int] = None) -> None:
        super().__init__(Path(sys.executable), "nginx")
        (self.directory / "nginx.conf").write_text(NGINX)
        self.command = ["nginx", "-p", str(self.directory), "-c", "nginx.conf", "-e", "logs/error.log"]
        if user is not None:
            self.command[:0] = ["setpriv", f"--reuid={user}", "--clear-groups"]
            for path in (self.directory, self.logs.directory):
                os.chown(path, user, user)

    def wait_until_serving(self, patience: float = wait.PATIENCE) -> None:
        # It listens before it writes this.
        pidfile = self.directory / "pidfile"
        wait.until(lambda: pidfile.exists() and pidfile.read_text(), self.stderr, patience)


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
def nginx() -> Iterator[Server]:
    with Nginx() as server:
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
    subject = ALONE._replace(worker_class=worker_class)
    return subject.server("--pid", "pidfile", variables={"ON_LOAD": more_application})


def everybody(server: Server) -> List[int]:
    return [server.arbiter, *(child.pid for child in psutil.Process(server.arbiter).children(recursive=True))]


def rotate_and_reopen(server: Server, *arguments: object, **how: Any) -> None:
    server.logs.rotate()
    reopen(*arguments, server.directory / "pidfile", **how).expect_silence()
    assert not server.logs.held(everybody(server), server.logs.rotated())
