"""What root's logrotate does with a server of another user. In addition: all else runs as any user."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator, Sequence

import environments
import pytest
from environments import NOBODY, Environment
from properties.server import Server

from test_reopen.conftest import UVICORN_WORKER, gunicorn, make
from test_reopen.logrotation import found, reopen
from test_reopen.nginx import Nginx
from test_reopen.test_refusals import HANDLES_USR1, running
from test_reopen.test_rotation import rotate_under_load

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("open_clone"),
]

#: Commands that run another one: as the service's user, and so that nobody else of that user may look into it.
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
AMBIENT = (*AS_NOBODY, "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service")
#: As root in a container by default: it may not look into processes of others, nor take leases of others' files.
CONTAINER = ("setpriv", "--bounding-set", "-sys_ptrace,-lease", "--inh-caps", "-sys_ptrace,-lease")


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    """One that everybody may run."""

    def open_to_all(python: Path) -> bool:
        return subprocess.call(["test", "-x", python], user=NOBODY) == 0

    versions = [version for version, python in environments.pythons().items() if open_to_all(python)]
    if not versions:
        pytest.skip("nobody but root may run any Python of this machine")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield make(Path(directory), max(versions))


def rotate(server: Server, rotations: int, directives: str, prefix: Sequence[str] = ()) -> None:
    """No line is lost, and logrotate never complains."""
    with server:
        (server.logs.directory / "old").mkdir()
        os.chown(server.logs.directory / "old", NOBODY, NOBODY)
        load = rotate_under_load(server, rotations, directives, prefix)
        assert not load.broken
        server.logs.expect_exactly_once(load.requests)


def serve(environment: Environment, prefix: Sequence[str]) -> Server:
    """Nobody's server; prefix is a command that runs it."""
    server = gunicorn(environment)
    server.command = [*prefix, *server.command]
    for path in (server.directory, *server.directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return server


@pytest.mark.parametrize("directives", ["", "sharedscripts", "extension .log", "olddir old"])
def test_a_directory_of_the_service(environment: Environment, directives: str, rotations: int) -> None:
    """logrotate rotates it as the service's user, by su, but runs scripts as root."""
    rotate(serve(environment, AS_NOBODY), rotations, f"su nobody nogroup\n    {directives}")


@pytest.mark.parametrize("runs", [AS_NOBODY, AMBIENT], ids=["", "ambient capabilities"])
def test_the_user_of_the_service_runs_logrotate(environment: Environment, runs: Sequence[str], rotations: int) -> None:
    """He may not look into his own processes, if they have capabilities that he has not."""
    rotate(serve(environment, runs), rotations, "sharedscripts", AS_NOBODY)


@pytest.mark.parametrize("prefix", [(), CONTAINER], ids=["", "container"])
def test_root_and_a_server_that_changes_its_user(
    environment: Environment, prefix: Sequence[str], rotations: int
) -> None:
    server = gunicorn(environment, UVICORN_WORKER)
    server.command[-1:-1] = ["--user", "nobody", "--group", "nogroup"]
    (server.control / "events").touch()
    for path in (server.directory, *server.directory.rglob("*")):
        os.chown(path, 0, NOBODY)
        path.chmod(0o775)
    # The new files are the workers', too, whoever reopens first.
    rotate(server, rotations, "su root nogroup\n    create 0660 nobody nogroup\n    sharedscripts", prefix)


def test_a_pidfile_that_is_exchanged_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner, and the process, are those of the file that was opened."""
    with Nginx(NOBODY) as server, running(HANDLES_USR1) as other:
        pidfile, stat = server.directory / "pidfile", tmp_path / "stat"
        stat.write_text(f"#!/bin/sh\necho {other.pid} >{tmp_path}/new && mv {tmp_path}/new {pidfile}\n")
        stat.chmod(0o755)
        with open(stat, "a") as script:
            script.write(f'exec {found("stat")} "$@"\n')
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        before = pidfile.read_text()
        for shell in ("dash", "bash"):  # That of busybox is its own
            pidfile.write_text(before)
            os.chown(pidfile, NOBODY, NOBODY)
            server.logs.rotate(["access.log"])
            answer = reopen(pidfile, f"{server.logs.directory}/*.log ", shell=shell)
            assert (answer.returncode, answer.stderr, pidfile.read_text()) == (0, "", f"{other.pid}\n")
        assert other.poll() is None
