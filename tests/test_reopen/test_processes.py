"""Whom reopen.sh waits for, and whom it signals."""

import os
import signal
import subprocess
import time
from typing import List, Union

import psutil
import pytest
from environments import Environment
from properties import wait
from properties.clients import Client, new_request
from properties.server import Server

from test_reopen.conftest import NOT_DUMPABLE, WORKER_CLASSES, gunicorn, without_ptrace
from test_reopen.logrotation import DASH_FIRST, SHELLS, finish, found, in_each_shell, named, reopen, start
from test_reopen.nginx import Nginx

#: Programs that the application starts, and that append to its log. SIGUSR1 would kill the first, and end the second,
#: which is the arbiter's own program, and has a handler, and the third, which calls itself as nginx's processes do.
STARTS_PROGRAMS = """
import subprocess, sys

HANDLES_USR1 = "import signal, sys, time; signal.signal(signal.SIGUSR1, sys.exit); print(flush=True); time.sleep(600)"
stream = log.handlers[0].stream
programs = [subprocess.Popen(["sleep", "600"], stdout=stream)]
programs.append(subprocess.Popen([sys.executable, "-c", HANDLES_USR1], stdout=subprocess.PIPE, stderr=stream))
programs[1].stdout.readline()
PERL = '$SIG{USR1} = sub { exit }; $| = 1; print "\\n"; sleep 600'
programs.append(subprocess.Popen(["nginx: no", "-e", PERL], 0, "/usr/bin/perl", None, subprocess.PIPE, stream))
programs[2].stdout.readline()
"""

#: A log that cannot be opened a second time.
LOSES_ITS_LOG = """
class Once(logging.FileHandler):
    def _open(self):
        if hasattr(self, "stream"):
            return None
        return super()._open()

logging.getLogger("once").addHandler(Once("once.log"))
"""

#: An application with 10 children that have 1,000 files open each, and a chain of children that grows.
HAS_MANY_CHILDREN = """
import resource, time

resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
for child in range(10):
    if not os.fork():
        for _ in range(1000):
            os.open(log.handlers[0].baseFilename, os.O_WRONLY | os.O_APPEND)
        checkpoints.note("opened", os.getpid())
        time.sleep(600)
if not os.fork():
    while not os.fork():
        time.sleep(0.2)
    time.sleep(600)
"""


def everybody(server: Union[Server, Nginx]) -> List[int]:
    pid = server.process.pid
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


@pytest.mark.parametrize("shell", DASH_FIRST)
@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_a_worker_that_is_just_starting_is_waited_for(environment: Environment, worker_class: str, shell: str) -> None:
    """Gunicorn's handler, inherited from the arbiter, swallows its signal: so it is signalled again."""
    with gunicorn(environment, worker_class) as server, server.hold("post_fork") as hold:
        pidfile = server.directory / "pidfile"
        server.signal("arbiter", signal.SIGTTIN)
        born = hold.reached()
        server.logs.rotate()
        answer = reopen("-t", 0, pidfile, shell=shell)
        assert (answer.returncode, list(named(answer.stderr))) == (1, [born])

        server.logs.rotate()
        script = start(pidfile, shell=shell)
        server.wait_until_reopened([server.arbiter])
        hold.release()
        assert finish(script).returncode == 0
        assert not server.logs.held(everybody(server), server.logs.rotated())


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_a_process_that_the_application_forked_is_signalled_too(server: Server, shell: str) -> None:
    """It has the worker's files and the worker's handler, but the arbiter does not know it."""
    request = new_request()
    with server.hold(request) as hold, Client(server.socket) as client:
        child = int(client.get("fork", request))
        hold.reached()
        server.logs.rotate()
        answer = reopen(server.directory / "pidfile", shell=shell)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert not server.logs.held([*everybody(server), child], server.logs.rotated())


def test_a_program_that_cannot_reopen_is_named_and_lives(environment: Environment) -> None:
    """Only gunicorn's own processes are signalled: to others the signal may mean anything."""
    with gunicorn(environment, "gthread", STARTS_PROGRAMS) as server:
        programs = set(everybody(server)) - set(server.pids("all"))
        assert len(programs) == 6
        server.logs.rotate()
        for answer in in_each_shell("-t", 2, server.directory / "pidfile").values():
            assert answer.returncode == 1
            assert set(named(answer.stderr)) == programs
            assert all(", not signalled): " in what for whats in named(answer.stderr).values() for what in whats)
        assert all(psutil.Process(pid).status() == psutil.STATUS_SLEEPING for pid in programs)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_worker_that_has_lost_a_log_is_named(environment: Environment, shell: str) -> None:
    """What it would write is lost, though it does not write to the rotated file."""
    with gunicorn(environment, "gthread", LOSES_ITS_LOG) as server:
        workers = server.workers()
        (server.directory / "once.log").rename(server.directory / "once.log.1")
        answer = reopen("-t", 0, server.directory / "pidfile", shell=shell)
        assert answer.returncode == 1
        assert set(named(answer.stderr)) == set(workers), answer
        assert "has closed a rotated file and has no new one instead" in answer.stderr


def test_many_children_with_many_files(environment: Environment) -> None:
    """-t holds: ten seconds later it ends, whether a busy machine let it name them or not."""
    with gunicorn(environment, "gthread", HAS_MANY_CHILDREN) as server:
        wait.until(lambda: server.times("opened") == 20, lambda: "the children did not open their files")
        server.logs.path("application.log").rename(server.logs.path("application.log.1"))
        for shell in SHELLS:
            start = time.monotonic()
            answer = reopen("-t", 0, server.directory / "pidfile", shell=shell)
            assert time.monotonic() - start < 15
            assert answer.returncode == 1
            assert answer.stderr.endswith("  and others\n") or "reopen.sh: gave up after 10 s" in answer.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_second_arbiter_that_writes_to_the_same_file(environment: Environment, server: Server, shell: str) -> None:
    """Named by -p, or found by its file, and signalled after a second, as it is the same program."""
    second = gunicorn(environment)
    second.command[-1:-1] = ["--access-logfile", str(server.logs.path("access.log"))]
    with second:
        pidfiles = [server.directory / "pidfile", second.directory / "pidfile"]
        for arguments in (["-p", *pidfiles], pidfiles[:1]):
            server.logs.rotate()
            answer = reopen(*arguments, shell=shell)
            assert (answer.returncode, answer.stderr) == (0, "")
            assert not server.logs.held([*everybody(server), *everybody(second)], server.logs.rotated())


def test_a_process_that_is_not_below_the_arbiter(server: Server) -> None:
    """Such as supervisord, which keeps in a file what the arbiter writes to stdout."""
    rotated = server.directory / "stdout.log.old"
    with open(rotated, "a") as file:
        keeper = subprocess.Popen(["sleep", "600"], stdout=file)
    try:
        for answer in in_each_shell("-t", 0, server.directory / "pidfile", rotated).values():
            assert answer.returncode == 1
            assert named(answer.stderr) == {keeper.pid: [f"(sleep, not signalled): {rotated}"]}
    finally:
        keeper.kill()
        keeper.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who has no other processes")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_user_who_may_not_start_enough_processes(shell: str, open_clone: None) -> None:
    """Wherever a fork fails, nobody has been seen to let go."""
    user = 64531 + SHELLS.index(shell)
    with Nginx(user) as server:
        wait.until(lambda: len(everybody(server)) == 3, lambda: "no workers came up")
        stopped = everybody(server)[-1]
        os.kill(stopped, signal.SIGSTOP)
        server.logs.rotate(["access.log", "error.log"])
        try:
            for more in (8, 7, 5):
                prefix = [found("prlimit"), f"--nproc={3 + more}"]
                answer = reopen("-t", 0, server.directory / "pidfile", shell=shell, prefix=prefix, user=user)
                assert answer.returncode in (1, 2), answer
                assert list(named(answer.stderr)) == [stopped] * (more == 8), "8 are enough"
        finally:
            os.kill(stopped, signal.SIGCONT)


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_the_second_arbiter_during_an_upgrade(server: Server, shell: str) -> None:
    """After SIGUSR2 there are two arbiters: the new one is a child of the old one, whom the pidfile names."""
    pidfile = server.directory / "pidfile.2"
    server.signal("arbiter", signal.SIGUSR2)
    wait.until(lambda: server.times("started") == 4, lambda: "no new workers came up")
    server.logs.rotate()
    answer = reopen(server.directory / "pidfile", shell=shell)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert int(pidfile.read_text()) in everybody(server)
    assert not server.logs.held(everybody(server), server.logs.rotated())


@pytest.mark.parametrize("shell", SHELLS)
def test_an_arbiter_that_ends_meanwhile(server: Server, shell: str) -> None:
    """Its workers may live on and write; nobody can tell whose they were."""
    [stopped, _] = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    server.logs.rotate()
    script = start(server.directory / "pidfile", shell=shell)
    server.wait_until_reopened([server.arbiter])
    children = psutil.Process(server.arbiter).children()
    server.process.kill()
    server.process.wait()
    try:
        answer = finish(script)
        assert answer.returncode == 1
        assert f"process {server.arbiter} ended meanwhile" in answer.stderr
    finally:
        for child in children:
            child.kill()


@pytest.mark.root
@pytest.mark.parametrize("shell", SHELLS)
def test_a_worker_that_cannot_be_looked_into_is_named(environment: Environment, shell: str) -> None:
    """Nobody knows whether it has let go."""
    server = gunicorn(environment, "gthread", NOT_DUMPABLE)
    server.command = [*without_ptrace(), *server.command]
    with server:
        answer = reopen("-t", 0, server.directory / "pidfile", shell=shell, prefix=without_ptrace())
        assert answer.returncode == 1
        said = named(answer.stderr)
        assert set(said) == set(server.workers())
        assert all("root with CAP_SYS_PTRACE" in "".join(what) for what in said.values())


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_an_arbiter_under_another_name(environment: Environment, shell: str) -> None:
    """A program that embeds gunicorn is known by the files that it has open for its workers."""
    server = gunicorn(environment)
    (server.directory / "serve.py").write_text("from gunicorn.app.wsgiapp import run\n\nrun()\n")
    server.command = [str(environment.python), "serve.py", *server.command[3:]]
    with server:
        assert "gunicorn" not in " ".join(psutil.Process(server.arbiter).cmdline())
        server.logs.rotate()
        answer = reopen(server.directory / "pidfile", shell=shell)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert not server.logs.held(everybody(server), server.logs.rotated())


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_a_pidfile_that_is_missing_for_a_moment(server: Server, shell: str) -> None:
    """Gunicorn removes it and writes it anew when it reloads."""
    pidfile, away = server.directory / "pidfile", server.directory / "away"
    pidfile.rename(away)
    script = start(pidfile, shell=shell)
    wait.until(psutil.Process(script.pid).children, lambda: "the script does not wait")
    away.rename(pidfile)
    assert finish(script).returncode == 0
