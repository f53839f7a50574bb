"""logrotate with the report's configuration, compressing at once, and reopen.sh as postrotate."""

import os
import re
import signal
import threading
from typing import Any, Sequence, Union

import environments
import pytest
from environments import NOBODY, Environment
from properties import wait
from properties.clients import Load
from properties.logs import NAMES
from properties.server import Server

from test_reopen.conftest import ROOT_ONLY, WORKER_CLASSES, gunicorn
from test_reopen.logrotation import REOPEN, Logrotate
from test_reopen.nginx import Nginx, run_nginx

APART = ("", "extension .log", "olddir old")
DIRECTIVES = (*APART, *(f"sharedscripts\n{one}" for one in APART))


def rotate_under_load(
    server: Union[Server, Nginx], rotations: int, prefix: Sequence[str] = (), broken: bool = False, **how: Any
) -> Load:
    """
    Nothing is lost, nothing is doubled, and logrotate, which prefix runs, and gzip have nothing to say.

    Nor are requests broken, unless they may be. The rest is for Logrotate.
    """
    logrotate = Logrotate(server.logs, **{"arguments": [server.directory / "pidfile"], **how})
    with Load(server.socket, 16) as load:
        for _ in range(rotations):
            load.wait_for_answers(16)
            logrotate.rotate(prefix)
        load.wait_for_answers(16)
    assert broken or not load.broken
    server.logs.expect_exactly_once(load.requests, NAMES if isinstance(server, Server) else ["access.log"])
    return load


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
@pytest.mark.parametrize("directives", DIRECTIVES)
def test_every_line_once(environment: Environment, worker_class: str, directives: str, rotations: int) -> None:
    with gunicorn(environment, worker_class) as server:
        rotate_under_load(server, rotations, directives=directives)
        assert not server.exits()
        assert server.stderr() == ""


@pytest.mark.parametrize("directives", ["", "sharedscripts"])
@pytest.mark.parametrize("files", ["", '"$1"', '"$1"-[0-9]*'])
def test_every_line_once_by_other_postrotates(server: Server, directives: str, files: str) -> None:
    """With sharedscripts, $1 is the pattern and a blank. Then nothing has the name of the last one."""
    postrotate = f"'{REOPEN}' '{server.directory}/pidfile' {files}"
    rotate_under_load(server, 5, postrotate=postrotate, directives=directives)


@pytest.mark.root
@pytest.mark.parametrize("directives", ["", pytest.param("sharedscripts", marks=pytest.mark.full)])
def test_every_line_once_with_nginx(directives: str, rotations: int) -> None:
    with run_nginx() as server:
        rotate_under_load(server, rotations, directives=directives)


def test_every_line_once_of_two_servers_with_one_log(environment: Environment, rotations: int) -> None:
    """Both write to the access log of the first, and logrotate waits for both."""
    second = gunicorn(environment)
    with gunicorn(environment) as first:
        second.command[-1:-1] = ["--access-logfile", str(first.logs.path("access.log"))]
        pidfiles = ["-p", second.directory / "pidfile", first.directory / "pidfile"]
        with second, Load(second.socket, 4) as other:
            rotate_under_load(first, rotations, arguments=pidfiles)
            other.wait_for_answers(16)
        assert not other.broken
        first.logs.expect_exactly_once(other.requests, ["access.log"])


def test_every_line_once_while_workers_come_and_go(server: Server, rotations: int) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU:
                os.kill(server.arbiter, number)
                stop.wait(0.5)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        rotate_under_load(server, rotations // 2, broken=True)
    finally:
        stop.set()
        churning.join()
    assert len(server.exits()) >= rotations / 10
    assert not [death for death in server.deaths() if "SIGTERM" not in death and "exited with 0" not in death]


def test_a_stopped_worker_is_named_and_the_file_kept(server: Server) -> None:
    logrotate = Logrotate(server.logs, ["-t", 0, server.directory / "pidfile"])
    request = server.get()
    stopped, _ = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    try:
        answer = logrotate.run()
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert answer.returncode == 1
    kept = [str(file) for file in server.logs.directory.glob("*.log-*")]
    assert len(kept) == len(NAMES) and not any(file.endswith(".gz") for file in kept)
    said = re.findall(r"  process (\d+) \([\w, ]+\): (.*)\n", answer.stdout)
    assert sorted(said) == sorted((str(stopped), file) for file in kept)
    following = server.get()
    Logrotate(server.logs, [server.directory / "pidfile"]).rotate()
    assert not server.logs.not_exactly_once([request, following]), "the next rotation overwrites what was kept"


def test_without_waiting_lines_are_lost(environment: Environment) -> None:
    """The tests above can fail: this is what a postrotate does that only sends the signal."""
    with gunicorn(environment, "gthread") as server, server.hold("post_fork") as hold:
        logrotate = Logrotate(server.logs, postrotate=f'kill -USR1 "$(cat {server.directory}/pidfile)"')
        server.signal("workers", signal.SIGKILL)
        wait.until(lambda: len(hold.marks()) == 2, lambda: "no new workers came up")
        answer = logrotate.run()  # Gunicorn, which is pristine here, swallows the signal at that place
        # By chance gzip complains: that the arbiter logged the signal while it compressed that log.
        assert answer.returncode == 0, answer.stdout
        server.signal("arbiter", signal.SIGWINCH)  # Of two signals that wait, the one with the lower number comes first
        said = "Handling signal: winch"
        wait.until(lambda: said in "".join(server.logs.lines("error.log")), lambda: "the arbiter does not say so")
        hold.release()
        server.wait_until_serving()
        request = server.get()
        logrotate.unpack()
        assert len(server.logs.not_exactly_once([request], ["error.log"])) == 1


#: Commands that run another one: as the service's user, and so that nobody else of that user may look into it.
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
AMBIENT = (*AS_NOBODY, "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service")
#: As root in a container by default: it may not look into processes of others, nor take leases of others' files.
CONTAINER = ("setpriv", "--bounding-set", "-sys_ptrace,-lease", "--inh-caps", "-sys_ptrace,-lease")


@pytest.fixture
def for_nobody(environment: Environment, open_clone: None) -> Environment:
    if not environments.is_open(environment.python):
        pytest.skip("nobody but root may run any Python of this machine")
    return environment


def serve(environment: Environment, prefix: Sequence[str] = (), user: int = NOBODY) -> Server:
    """Whose group is nobody's; prefix is a command that runs it."""
    server = gunicorn(environment)
    server.command[:0] = prefix
    (server.control / "events").touch()
    (server.logs.directory / "old").mkdir()
    for path in (server.directory, *server.directory.rglob("*")):
        os.chown(path, user, NOBODY)
    return server


@ROOT_ONLY
@pytest.mark.parametrize("directives", ["", "sharedscripts", "extension .log", "olddir old"])
def test_a_directory_of_the_service(for_nobody: Environment, directives: str, rotations: int) -> None:
    """logrotate rotates it as the service's user, by su, but runs scripts as root."""
    with serve(for_nobody, AS_NOBODY) as server:
        rotate_under_load(server, rotations, directives=f"su nobody nogroup\n    {directives}")


@ROOT_ONLY
@pytest.mark.parametrize("runs", [AS_NOBODY, AMBIENT], ids=["", "ambient capabilities"])
def test_the_user_of_the_service_runs_logrotate(for_nobody: Environment, runs: Sequence[str], rotations: int) -> None:
    """He may not look into his own processes, if they have capabilities that he has not."""
    with serve(for_nobody, runs) as server:
        rotate_under_load(server, rotations, AS_NOBODY, directives="sharedscripts")


@ROOT_ONLY
@pytest.mark.parametrize("prefix", [(), CONTAINER], ids=["", "container"])
def test_root_and_a_server_that_changes_its_user(
    for_nobody: Environment, prefix: Sequence[str], rotations: int
) -> None:
    server = serve(for_nobody, user=0)
    server.command[-1:-1] = ["--user", "nobody", "--group", "nogroup"]
    for path in (server.directory, *server.directory.rglob("*")):
        path.chmod(0o775)
    # The new files are the workers', too, whoever reopens first.
    directives = "su root nogroup\n    create 0660 nobody nogroup\n    sharedscripts"
    with server:
        rotate_under_load(server, rotations, prefix, directives=directives)
