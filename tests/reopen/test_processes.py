"""Whom reopen.sh waits for, and whom it signals."""

import os
import signal
import subprocess
from typing import List

import psutil
import pytest
from environments import Environment
from properties import wait
from properties.clients import Client, new_request
from properties.server import Server

from reopen.conftest import WORKER_CLASSES, gunicorn
from reopen.logrotation import REOPEN, reopen

#: The application starts a program that appends to its log; SIGUSR1 would kill it.
STARTS_A_PROGRAM = """
import subprocess

program = subprocess.Popen(["sleep", "600"], stdout=log.handlers[0].stream)
"""

#: Like a worker that has changed its user.
NOT_DUMPABLE = """
import ctypes

PR_SET_DUMPABLE = 4
assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
"""


def everybody(server: Server) -> List[int]:
    return [server.arbiter, *(child.pid for child in psutil.Process(server.arbiter).children(recursive=True))]


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_a_worker_that_is_just_starting_is_waited_for(environment: Environment, worker_class: str) -> None:
    """Gunicorn's handler, inherited from the arbiter, swallows its signal: so it is signalled again."""
    with gunicorn(environment, worker_class) as server, server.hold("post_fork") as hold:
        pidfile = server.directory / "pidfile"
        server.signal("arbiter", signal.SIGTTIN)
        born = hold.reached()
        server.logs.rotate()
        answer = reopen("-t", 5, pidfile)
        assert answer.returncode == 1
        assert {line.split()[1] for line in answer.stderr.splitlines()[1:]} == {str(born)}

        server.logs.rotate()
        script = subprocess.Popen([REOPEN, pidfile])
        server.wait_until_reopened([server.arbiter])
        hold.release()
        assert script.wait(wait.PATIENCE) == 0
        assert not server.logs.held(everybody(server), server.logs.rotated())


def test_a_process_that_the_application_forked_is_signalled_too(server: Server) -> None:
    """It has the worker's files and the worker's handler, but the arbiter does not know it."""
    request = new_request()
    with server.hold(request) as hold, Client(server.socket) as client:
        child = int(client.get("fork", request))
        hold.reached()
        server.logs.rotate()
        answer = reopen(server.directory / "pidfile")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert not server.logs.held([*everybody(server), child], server.logs.rotated())


def test_a_program_that_cannot_reopen_is_named_and_lives(environment: Environment) -> None:
    with gunicorn(environment, "gthread", STARTS_A_PROGRAM) as server:
        programs = {pid for pid in everybody(server) if psutil.Process(pid).name() == "sleep"}
        assert len(programs) == 2
        server.logs.rotate()
        answer = reopen("-t", 5, server.directory / "pidfile")
        assert answer.returncode == 1
        assert {int(line.split()[1]) for line in answer.stderr.splitlines()[1:]} == programs
        assert all(psutil.Process(pid).status() == psutil.STATUS_SLEEPING for pid in programs)


def test_the_second_arbiter_during_an_upgrade(server: Server) -> None:
    """After SIGUSR2 there are two arbiters: the new one is a child of the old one, whom the pidfile names."""
    pidfile = server.directory / "pidfile.2"
    server.signal("arbiter", signal.SIGUSR2)
    wait.until(lambda: server.times("started") == 4, lambda: "no new workers came up")
    server.logs.rotate()
    answer = reopen(server.directory / "pidfile")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert int(pidfile.read_text()) in everybody(server)
    assert not server.logs.held(everybody(server), server.logs.rotated())


def test_an_arbiter_that_ends_meanwhile(server: Server) -> None:
    """Its workers may live on and write; nobody can tell whose they were."""
    [stopped, _] = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    server.logs.rotate()
    script = subprocess.Popen([REOPEN, server.directory / "pidfile"], stderr=subprocess.PIPE, text=True)
    server.wait_until_reopened([server.arbiter])
    children = psutil.Process(server.arbiter).children()
    server.process.kill()
    server.process.wait()
    try:
        _, complaint = script.communicate(timeout=wait.PATIENCE)
    finally:
        for child in children:
            child.kill()
    assert script.returncode == 1
    assert f"process {server.arbiter} ended meanwhile" in complaint


def test_a_worker_that_cannot_be_looked_into_is_named(environment: Environment) -> None:
    """Nobody knows whether it has let go."""
    without_privilege = ["setpriv", "--bounding-set=-sys_ptrace"] if os.geteuid() == 0 else []
    server = gunicorn(environment, "gthread", NOT_DUMPABLE)
    server.command = [*without_privilege, *server.command]
    with server:
        command = [*without_privilege, str(REOPEN), "-t", "0", str(server.directory / "pidfile")]
        answer = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        assert answer.returncode == 1, answer
        complaints = answer.stderr.splitlines()[1:]
        assert {int(line.split()[1]) for line in complaints} == set(server.workers())
        assert all(line.endswith(": may not see which files it has open; run this as root") for line in complaints)


def test_an_arbiter_under_another_name(environment: Environment) -> None:
    """A program that embeds gunicorn is known by the files that it has open for its workers."""
    server = gunicorn(environment)
    (server.directory / "serve.py").write_text("from gunicorn.app.wsgiapp import run\n\nrun()\n")
    server.command = [str(environment.python), "serve.py", *server.command[3:]]
    with server:
        assert "gunicorn" not in " ".join(psutil.Process(server.arbiter).cmdline())
        server.logs.rotate()
        answer = reopen(server.directory / "pidfile")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert not server.logs.held(everybody(server), server.logs.rotated())


def test_a_pidfile_that_is_missing_for_a_moment(server: Server) -> None:
    """Gunicorn removes it and writes it anew when it reloads."""
    pidfile, away = server.directory / "pidfile", server.directory / "away"
    pidfile.rename(away)
    script = psutil.Popen([REOPEN, pidfile])
    wait.until(script.children, lambda: "the script does not wait")
    away.rename(pidfile)
    assert script.wait(wait.PATIENCE) == 0
