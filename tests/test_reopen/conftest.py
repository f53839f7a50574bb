"""The servers, reopen.sh, and real logrotate with the configuration of the original report."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

import environments
import psutil
import pytest
from bench.subjects import ALONE
from environments import UVICORN
from properties import wait
from properties.logs import Logs
from properties.server import Server

REOPEN = Path(__file__).resolve().parents[2] / "scripts" / "reopen.sh"
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

#: What reopen.sh runs under, each with the tools that come with it.
SHELLS = ("dash", "bash", "busybox")

Script = subprocess.Popen[str]

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
    server {
        listen unix:socket;
        location / { return 200 "ok\\n"; }
    }
}
"""

CONFIGURATION = """
"{directory}"/*.log {{
    size 1M
    rotate 20
    compress
    nodelaycompress
    dateformat -%Y-%m-%d-%s
    dateext
    missingok
    notifempty
    {directives}
    postrotate
        {postrotate}
    endscript
}}
"""


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
        # It listens, and has written its pidfile, before it has workers.
        wait.until(lambda: len(psutil.Process(self.arbiter).children()) == 2, self.stderr, patience)


class Answer(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    def expect_silence(self) -> None:
        assert self == (0, "", "")

    def refused(self) -> str:
        assert (self.returncode, self.stdout) == (2, ""), self
        [message] = self.stderr.splitlines()
        assert message.startswith("reopen.sh: ") and message.endswith("; no signal was sent")
        assert message.isprintable()
        return message

    def writers(self) -> Dict[int, List[str]]:
        """What it says of each process that it has waited for in vain: "(program): file"."""
        assert self.returncode == 1, self
        said: Dict[int, List[str]] = {}
        for pid, what in re.findall(r"^  process (\d+):? (.*)$", self.stderr, re.MULTILINE):
            said.setdefault(int(pid), []).append(what)
        return said

    def not_signalled(self) -> Set[int]:
        said = self.writers()
        assert all(", not signalled): " in what for whats in said.values() for what in whats), self
        return set(said)


def start(*arguments: object, shell: str = "sh", prefix: Sequence[str] = (), path: object = None) -> Script:
    """Start reopen.sh; prefix is a command that runs it, path a directory to find programs in, and nowhere else."""
    command = [*prefix, found(shell), *(["sh"] if shell == "busybox" else []), str(REOPEN), *map(str, arguments)]
    places = f"{os.environ['APPLETS']}:{os.path.dirname(found('perl'))}" if shell == "busybox" else os.environ["PATH"]
    variables = {**os.environ, "PATH": str(path or places)}
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(script: Script, timeout: float = 60) -> Answer:
    out, err = script.communicate(timeout=timeout)
    return Answer(script.returncode, out, err)


def reopen(*arguments: object, **how: Any) -> Answer:
    return finish(start(*arguments, **how))


def found(program: str) -> str:
    path = shutil.which(program)
    assert path, f"no {program} on the PATH"
    return path


class Logrotate:
    """Rotates the logs of a server with a pidfile; options are reopen.sh's, or postrotate is another command."""

    def __init__(self, logs: Logs, options: str = "", postrotate: str = "", directives: str = "") -> None:
        self.logs = logs
        self.configuration = logs.directory.parent / "logrotate.conf"
        postrotate = postrotate or f"'{REOPEN}' {options} '{logs.directory.parent}/pidfile' \"$@\""
        text = CONFIGURATION.format(directory=logs.directory, directives=directives, postrotate=postrotate)
        self.configuration.write_text(text)
        self.configuration.chmod(0o644)
        (logs.directory / "old").mkdir(exist_ok=True)  # For olddir

    def run(self, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """One rotation of every log, whatever its size; prefix is a command that runs logrotate."""
        command = [*prefix, "logrotate", "--force", "--state", f"{self.configuration}.state", str(self.configuration)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)

    def rotate(self, prefix: Sequence[str] = ()) -> None:
        answer = self.run(prefix)
        assert (answer.returncode, answer.stdout) == (0, ""), answer.stdout
        self.unpack()

    def unpack(self) -> None:
        """Read what has been compressed, and remove it."""
        for packed in self.logs.directory.rglob("*.gz"):
            name = re.split("[-.]", packed.name)[0]
            text = gzip.open(packed, "rt")  # noqa: SIM115
            self.logs.removed.append((f"{name}.log", text, text.read()))
            packed.unlink()
