"""Which files reopen.sh waits for, for whom it waits, whom it signals, and what it refuses."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, TextIO

import environments
import psutil
import pytest
from environments import NOBODY, UVICORN
from properties import wait
from properties.activities import doing
from properties.server import Server

from test_reopen.conftest import ROOT_ONLY, SHELLS, Answer, Nginx, Script, finish, found, gunicorn, reopen, start

#: What reopen.sh runs, but to ask for leases.
TOOLS = ["cat", "grep", "head", "ls", "readlink", "sed", "sleep", "sort", "stat", "tr", "xargs"]


def in_each_shell(*arguments: object, timeout: float = 60) -> List[Answer]:
    """Run reopen.sh to its end in all shells at once: most of the time it only waits."""
    scripts = [start(*arguments, shell=shell) for shell in SHELLS]
    return [finish(one, timeout) for one in scripts]


def links(directory: Path, *names: str) -> Path:
    directory.mkdir()
    for one in names:
        (directory / one).symlink_to(found(one))
    return directory


def processor_time() -> float:
    """Of what has been run here, and has ended, in seconds."""
    return sum(os.times()[2:4])


def everybody(server: Server) -> List[int]:
    return [server.arbiter, *(child.pid for child in psutil.Process(server.arbiter).children(recursive=True))]


def rotate_and_reopen(server: Server, *arguments: object, **how: Any) -> None:
    server.logs.rotate()
    reopen(*arguments, server.directory / "pidfile", **how).expect_silence()
    assert not server.logs.held(everybody(server), server.logs.rotated())


# Which files: one that this process has open tells

#: What logrotate makes of access.log, and what it passes to a script: $1 and, if the script is not shared, $2.
ROTATIONS = [
    ("access.log-20261129", ["{logs}/access.log", "{logs}/access.log-20261129"]),
    ("access.log-20261129", ['"{spaced}"/*.log /nothing/*.log\n']),
    ("access.log-20261129", ["{logs}/error.log {logs}/access.log "]),
    ("access.log-20261129", ["{logs}/access.log"]),  # As 3.8.6 does
    ("access.log.1", ["{logs}/*.log "]),
    ("access.log_2026-11-29", ["{logs}/*.log "]),
    ("access-20261129.log", ["{logs}/access.log", "{logs}/access-20261129.log"]),
    ("access-20261129.log", ["{logs}/*.log "]),
    ("access-20261129.log", ["{logs}/access.log", "{logs}/access-api.log"]),
    ("access-20261129-1795443875.log", ["{logs}/access.log "]),
    ("old/access.log-20261129", ["{logs}/access.log", "{logs}/old/access.log-20261129"]),
    ("old/access.log-20261129", ["{logs}/*.log "]),
    ("old/access-20261129.log", ["{logs}/*.log "]),
    ("access.log.tmp", ["{logs}/access.log", "{logs}/access.log-20261129"]),  # By renamecopy
    ("with spaces.log-20261129", ["{spaced}/with spaces.log"]),
    # As somebody passes it who knows what is rotated
    ("20261123 of access", ["{logs}/20261123 of access"]),
    ("access.log.old", ["{logs}/20261123 of access", "{logs}/access.log.old"]),
]

#: What logrotate may have made anew, and other files that are no rotated ones.
CREATED = ("access.log", "with spaces.log")
CURRENT = ("access-api.log", "gunicorn-8001.log", "requests_2026-11-23.log", "access.log.pos", "access.log.1.gz")

NAMES = (
    *("access.log.1", "access.log-20261123", "access.log-2026-11-23-1795443875", "access.log-20261123T101500Z"),
    *("access.log_20261123", "access.log-20261123+0100", "AUDIT-20261123", "with spaces.log.12", "app-20261123.log"),
)
UNRELATED = (
    *(("gunicorn-8001.log", "a"), ("requests_2026-11-23.log", "a"), ("part2", "a"), ("2026-11-23", "a")),
    *(("export", "w"), ("upload.1", "w+"), (__file__, "r"), ("*", "a")),
)


@pytest.mark.parametrize("create", [False, True], ids=["", "create"])
def test_what_logrotate_passes(nginx: Nginx, tmp_path: Path, create: bool, shell: str) -> None:
    """Whether or not it has made new logs, and of nothing else. All at once, each in a folder of its own."""

    def start_all() -> List[Script]:
        return [start("-t", 0, nginx.directory / "pidfile", *arguments, shell=shell) for arguments in passed.values()]

    passed: Dict[TextIO, List[str]] = {}  # By what is held open
    with contextlib.ExitStack() as opened:
        for number, (rotated, templates) in enumerate(ROTATIONS):
            spaced, logs = tmp_path / f"some logs {number}", tmp_path / f"logs{number}"
            (spaced / "old").mkdir(parents=True)
            logs.symlink_to(spaced)  # Only what is in quotes has blanks in its name.
            for name in ("access.log.1", "access-api.log.1", "20261123 of access"):
                (spaced / name).touch()
            for name in ("error.log", *CURRENT, *(CREATED if create else ())):
                opened.enter_context(open(spaced / name, "a"))
            holding = opened.enter_context(open(spaced / rotated, "a"))
            passed[holding] = [one.format(logs=logs, spaced=spaced) for one in templates]
        for file, answer in zip(passed, map(finish, start_all())):
            assert answer.writers() == {os.getpid(): [f"(python, not signalled): {file.name}"]}
            file.close()
        for answer in map(finish, start_all()):
            answer.expect_silence()


def test_nothing_has_been_rotated(nginx: Nginx) -> None:
    for answer in in_each_shell(nginx.directory / "pidfile"):
        assert answer.returncode == 1
        assert answer.stderr == "reopen.sh: signal sent, but found no rotated file; name it: reopen.sh PIDFILE FILE\n"
    full = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"]  # Where nothing can be said
    assert reopen(nginx.directory / "pidfile", prefix=full).returncode == 1
    assert reopen("/no/pidfile", prefix=full).returncode == 2


def test_without_files_those_are_waited_for_that_have_the_name_of_a_rotated_log() -> None:
    opens = f"opened = [open(*file) for file in {[*UNRELATED, *((name, 'a') for name in NAMES)]}]"
    with gunicorn("gthread", opens) as server:
        for answer in in_each_shell("-t", 0, server.directory / "pidfile"):
            said = [what for whats in answer.writers().values() for what in whats]
            assert {Path(what.partition(": ")[2]).name for what in said} == set(NAMES)


# Whom

#: SIGUSR1 ends it. It has a name that might do something to a terminal.
HANDLES_USR1 = """
import signal, sys
signal.signal(signal.SIGUSR1, sys.exit)
open("/proc/self/comm", "w").write("\x1b[31mpython")
print(flush=True)
signal.pause()
"""

#: A program that the application starts, and that appends to its log: the arbiter's own, which SIGUSR1 would end.
STARTS_A_PROGRAM = f"""
import subprocess, sys

command = [sys.executable, "-c", {HANDLES_USR1!r}]
program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.handlers[0].stream)
program.stdout.readline()
"""

#: A program that embeds gunicorn, and whose processes nobody without a capability may look into.
NOT_DUMPABLE = """
import ctypes
from gunicorn.app.wsgiapp import run

PR_SET_DUMPABLE = 4
assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
run()
"""

#: A command that runs another one as Docker does: root may not look into processes of others.
WITHOUT_PTRACE = ["setpriv", "--bounding-set=-sys_ptrace"] if os.geteuid() == 0 else []

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


def wait_until_it_sleeps(script: Script) -> None:
    """It has found out for the first time that it has to wait."""
    sleeping = ["pgrep", "--parent", str(script.pid), "--full", "sleep 0.1"]
    wait.until(lambda: subprocess.call(sleeping) == 0, lambda: "the script does not wait")


@pytest.mark.parametrize("worker_class", environments.parameters([UVICORN, "asgi", "gthread"], [UVICORN]))
def test_a_worker_that_is_just_starting_is_waited_for(worker_class: str, shell: str) -> None:
    """Gunicorn's handler, inherited from the arbiter, swallows its signal: so it is signalled again."""
    with gunicorn(worker_class) as server, server.hold("post_fork") as hold:
        pidfile = server.directory / "pidfile"
        server.signal("arbiter", signal.SIGTTIN)
        born = hold.reached()
        server.logs.rotate()
        assert list(reopen("-t", 0, pidfile, shell=shell).writers()) == [born]

        server.logs.rotate()
        script = start(pidfile, shell=shell)
        server.wait_until_reopened([server.arbiter])
        hold.release()
        finish(script).expect_silence()
        assert not server.logs.held(everybody(server), server.logs.rotated())


def test_processes_that_the_arbiter_does_not_signal(server: Server, shell: str) -> None:
    """One that the application has forked, with the worker's files and handler, and the arbiter of an upgrade."""
    with doing(server, ["fork"]) as activities:
        # Then there are two arbiters: the new one is a child of the old one, whom the pidfile names.
        server.signal("arbiter", signal.SIGUSR2)
        wait.until(lambda: server.times("started") == 4, lambda: "no new workers came up")
        others = {activities.running[0].pid, int((server.directory / "pidfile.2").read_text())}
        assert others < set(everybody(server))
        rotate_and_reopen(server, shell=shell)


def test_a_program_that_cannot_reopen_is_named_and_lives() -> None:
    """Only gunicorn's own processes are signalled: to others the signal may mean anything."""
    with gunicorn("gthread", STARTS_A_PROGRAM) as server:
        programs = set(everybody(server)) - set(server.pids("all"))
        assert len(programs) == 2
        server.logs.rotate()
        for answer in in_each_shell("-t", 2, server.directory / "pidfile"):
            assert answer.not_signalled() == programs
        assert all(psutil.Process(pid).status() == psutil.STATUS_SLEEPING for pid in programs)


def test_many_children_with_many_files(shell: str) -> None:
    """It takes little of the processor, whatever others do, and no more than some of them are named."""
    with gunicorn("gthread", HAS_MANY_CHILDREN) as server:
        wait.until(lambda: server.times("opened") == 20, lambda: "the children did not open their files")
        server.logs.path("application.log").rename(server.logs.path("application.log.1"))
        before = processor_time()
        answer = reopen("-t", 0, server.directory / "pidfile", server.logs.path("*.log "), shell=shell)
        assert processor_time() - before < 5
        assert answer.returncode == 1
        assert answer.stderr.count("\n") == 21


@pytest.fixture(scope="module")
def crowd() -> Iterator[None]:
    sleepers = [subprocess.Popen(["sleep", "3600"]) for _ in range(2000)]
    yield
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.full
@pytest.mark.parametrize("names", [["access.log", "access.log.1"], ["*.log "], []], ids=["rotated", "pattern", ""])
def test_among_many_processes(server: Server, crowd: None, names: List[str]) -> None:
    """As soon as with kill, or who follows a log would miss more lines. The best of many: the machine may be busy."""
    log, rotated = server.logs.path("access.log"), server.logs.path("access.log.1")
    pidfile = server.directory / "pidfile"
    kill = ["sh", "-c", f'kill -USR1 "$(cat {pidfile})"']
    how: Dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    soonest, least = {"kill": 1.0, "reopen.sh": 1.0}, {"kill": 1.0, "reopen.sh": 1.0}
    for name in [*soonest] * 40:
        server.get()
        before, renamed = processor_time(), time.monotonic()
        log.rename(rotated)
        script = start(pidfile, *map(server.logs.path, names)) if name == "reopen.sh" else subprocess.Popen(kill, **how)
        while not log.exists() and time.monotonic() < renamed + 20:
            time.sleep(0.0001)
        soonest[name] = min(soonest[name], time.monotonic() - renamed)
        finish(script).expect_silence()
        least[name] = min(least[name], processor_time() - before)
        server.wait_until_reopened(server.pids("all"))
        rotated.unlink()
    assert soonest["reopen.sh"] < min(0.01, 1.5 * soonest["kill"])
    assert least["reopen.sh"] < 0.03


def test_a_second_arbiter_that_writes_to_the_same_file(server: Server) -> None:
    """Named by -p; or else it is waited for, as whoever writes to the file: only -p says that it may be signalled."""
    second = gunicorn()
    second.command[-1:-1] = ["--access-logfile", str(server.logs.path("access.log"))]
    pidfile = str(second.directory / "pidfile")
    ways = {"dash": [f"--pidfile={pidfile}"], "bash": ["-p", pidfile], "busybox": [f"-p{pidfile}"]}
    with second:
        for shell, options in ways.items():
            server.logs.rotate()
            answer = reopen("-t", 0, server.directory / "pidfile", shell=shell)
            assert answer.not_signalled() == set(everybody(second))
            rotate_and_reopen(server, *options, shell=shell)
            assert not server.logs.held(everybody(second), server.logs.rotated())


@ROOT_ONLY
@pytest.mark.parametrize("shell", environments.parameters(SHELLS, ["dash", "busybox"]))
def test_a_user_who_may_not_start_enough_processes(shell: str, open_clone: None) -> None:
    """Wherever a fork fails, nobody has been seen to let go. Only root can become a user without other processes."""
    user = 64531 + SHELLS.index(shell)
    with Nginx(user) as server:
        stopped = everybody(server)[-1]
        os.kill(stopped, signal.SIGSTOP)
        server.logs.rotate(["access.log", "error.log"])
        pidfile, logs = server.directory / "pidfile", server.logs.path("*.log ")
        try:
            for more in [1] if shell == "bash" else range(1, 9):  # Bash tries each fork for half a minute
                limit = ["setpriv", f"--reuid={user}", "--clear-groups", "prlimit", f"--nproc={3 + more}"]
                answer = reopen("-t", 0, pidfile, logs, shell=shell, prefix=limit)
                assert answer.returncode in (1, 2), answer
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_an_arbiter_that_ends_meanwhile(server: Server, shell: str) -> None:
    """Its workers are waited for: whose they were does not matter."""
    [stopped, other] = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    server.logs.rotate()
    script = start(server.directory / "pidfile", shell=shell)
    wait_until_it_sleeps(script)  # It has found what was rotated
    server.wait_until_reopened([server.arbiter, other])  # It has passed the signal on, to the oldest worker first
    server.process.kill()
    server.process.wait()
    assert script.poll() is None
    os.kill(stopped, signal.SIGCONT)
    finish(script).expect_silence()


@pytest.mark.root
@pytest.mark.parametrize("name", ["", "*.log "])
def test_a_server_that_cannot_be_looked_into(tmp_path: Path, name: str, shell: str) -> None:
    """As one with ambient capabilities. It is signalled, whatever it is called, also if no kernel tells who writes."""
    server = gunicorn("gthread")
    (server.directory / "serve.py").write_text(NOT_DUMPABLE)
    server.command[:3] = [*WITHOUT_PTRACE, server.command[0], "serve.py"]
    arguments = ["-t", 0, server.directory / "pidfile", *([server.logs.path(name)] if name else [])]
    with server:
        if name:
            server.logs.rotate()
            reopen(*arguments, shell=shell, prefix=WITHOUT_PTRACE).expect_silence()
        server.logs.rotate()
        programs = links(tmp_path / "programs", *TOOLS, "setpriv")
        answer = reopen(*arguments, shell=shell, prefix=WITHOUT_PTRACE, path=programs)
        wait.until(server.logs.path("error.log").exists, lambda: "it was not signalled")
        said = ["to see its files takes its own user, or root with CAP_SYS_PTRACE"]
        assert answer.writers() == {pid: said for pid in server.pids("all")}


@pytest.mark.parametrize("shell", environments.parameters(SHELLS, ["busybox"]))
def test_without_perl_and_python(server: Server, tmp_path: Path, shell: str) -> None:
    """Whoever may look into the processes needs no leases."""
    path = Path(os.environ["APPLETS"]) if shell == "busybox" else links(tmp_path / "programs", *TOOLS)
    stopped, other = server.workers()
    logs = server.logs.path("*.log ")
    for arguments in [], [logs]:
        server.logs.rotate()
        os.kill(stopped, signal.SIGSTOP)
        answer = reopen("-t", 0, server.directory / "pidfile", *arguments, shell=shell, path=path)
        os.kill(stopped, signal.SIGCONT)
        assert set(answer.writers()) == {stopped}
        assert "looked at /proc, as there are no leases" in answer.stderr
        reopen(server.directory / "pidfile", logs, shell=shell, path=path).expect_silence()
        assert not server.logs.held(everybody(server), server.logs.rotated())


@pytest.mark.parametrize("program", ["perl", "python3"])
def test_leases(server: Server, tmp_path: Path, program: str) -> None:
    """By either program; who opens the file meanwhile, again and again, is not kept from it, and nobody is killed."""
    programs = links(tmp_path / "programs", program, *TOOLS)
    rotated = server.logs.path("access.log.1")
    with open(rotated, "a"):
        answer = reopen("-t", 0, server.directory / "pidfile", rotated, path=programs)
        assert set(answer.writers()) == {os.getpid()}
        assert "/proc, as there are no leases" not in answer.stderr
    script = start("-t", 1, server.directory / "pidfile", rotated, path=programs)
    while script.poll() is None:
        os.close(os.open(rotated, os.O_WRONLY))
    assert finish(script).returncode in (0, 1)


def test_a_pidfile_that_is_missing_for_a_moment(server: Server, shell: str) -> None:
    """Gunicorn removes it and writes it anew when it reloads."""
    pidfile, away = server.directory / "pidfile", server.directory / "away"
    pidfile.rename(away)
    server.logs.rotate()
    script = start(pidfile, shell=shell)
    wait_until_it_sleeps(script)
    away.rename(pidfile)
    finish(script).expect_silence()


# What it refuses: with one message, exit status 2, and no signal to anybody

SECONDS = "-t: expected whole seconds, found "
USAGE = "expected a PIDFILE; see reopen.sh -h"
NO_FILE = "expected a pidfile, found no regular file to read; is the server running?"
NO_ID = "expected a process id, found something else; no signal was sent"

#: What is in a pidfile, which is not shown: it may be another's secret, or made for the terminal.
CONTENTS = {
    **dict.fromkeys(("", "root:$6$salt\n", "-1\n", "0\n", "12 34\n", "*\n", "\x1b[31m", "1" * 11, "\0" * 99), NO_ID),
    f"{2**22 + 1}\n": "stale, there is no such process; is the server running?",
}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], USAGE),
        (["-t", 5, "--"], USAGE),
        (["-x", "a"], "unknown option: -x"),
        (["--p=a", "b"], "unknown option: --p"),
        (["-t"], f"{SECONDS}''"),
        *((["-t", it, "pidfile"], f"{SECONDS}'{it}'") for it in ("", "-1", "1.5", "ten", "1000000")),
        (["-t", "\x1b[31m", "pidfile"], f"{SECONDS}'?[31m'"),  # Made for the terminal
        (["/a\nb"], f"/a?b: {NO_FILE}"),
        (["-u", "app.service"], "app.service: expected a systemd unit that runs"),
    ],
)
def test_arguments(arguments: List[object], message: str) -> None:
    for answer in in_each_shell(*arguments):
        assert message in answer.refused()


def test_help() -> None:
    for answer in [*in_each_shell("-h"), *in_each_shell("--help")]:
        assert answer.returncode == 0
        usage = "usage: reopen.sh [-t SECONDS] [-p PIDFILE] ... {PIDFILE | -u UNIT} [FILE ...]\n"
        assert answer.stdout.startswith(usage) and answer.stdout.endswith("or no such server\n")
        assert "default: 40" in answer.stdout


@pytest.fixture
def another_program() -> Iterator[Script]:
    """It may well have gunicorn in its command line, as an editor or a tail of a log has."""
    command = [sys.executable, "-c", HANDLES_USR1, "gunicorn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def test_what_is_no_pidfile_of_a_server(tmp_path: Path, another_program: Script) -> None:
    """Reading from a pipe would wait for a writer, and so would logrotate. A link leads to a file of anybody's."""
    pid = another_program.pid
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "process").write_text(f"{pid}")
    (tmp_path / "link").symlink_to("process")
    expected = {tmp_path / name: NO_FILE for name in (".", "missing", "pipe", "link")}
    expected[tmp_path / "process"] = f"expected a gunicorn arbiter or nginx master, found process {pid} (?[31mpython"
    for number, (content, message) in enumerate(CONTENTS.items()):
        pidfile = tmp_path / f"pidfile {number}"
        pidfile.write_text(content)
        expected[pidfile] = message
    # All at once, as each is tried for a second
    scripts = [(start(pidfile, shell=shell), pidfile) for pidfile in expected for shell in SHELLS]
    for script, pidfile in scripts:
        assert f"{pidfile}: {expected[pidfile]}" in finish(script).refused()
    assert another_program.poll() is None


def test_a_pidfile_that_cannot_be_opened_now(tmp_path: Path) -> None:
    """Its owner can hold up for 45 s who opens it, by a lease that he does not give back."""
    pidfile = tmp_path / "pidfile"
    pidfile.write_text(str(os.getpid()))
    with open(pidfile, "r+") as leased:
        fcntl.fcntl(leased, fcntl.F_SETSIG, signal.SIGURG)  # SIGIO, which asks for it back by default, would end pytest
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        answers = in_each_shell("-t", 0, pidfile, timeout=25)
        left = [one for one in psutil.process_iter(["cmdline"]) if str(pidfile) in (one.info["cmdline"] or ())]
    for answer in answers:
        assert answer.returncode == 2
        message = f"reopen.sh: {pidfile}: expected a pidfile, cannot read it; no signal was sent"
        assert [line for line in answer.stderr.splitlines() if line.startswith("reopen.sh: ")] == [message]
    assert not left, "what opened it lives on"


@ROOT_ONLY
def test_a_pidfile_of_somebody_who_may_not_signal_that_process(tmp_path: Path) -> None:
    """So nobody who may write pidfiles makes root signal what he could not signal himself."""
    pidfile = tmp_path / "pidfile"
    pidfile.write_text("1")
    os.chown(pidfile, NOBODY, NOBODY)
    for answer in in_each_shell(pidfile):
        assert f"belongs to user {NOBODY}, but the process that it names to user 0" in answer.refused()


@ROOT_ONLY
@pytest.mark.usefixtures("open_clone")
def test_a_pidfile_that_is_exchanged_while_it_is_read(tmp_path: Path, another_program: Script) -> None:
    """Its owner, and the process, are those of the file that was opened."""
    with Nginx(NOBODY) as server:
        pidfile, stat = server.directory / "pidfile", tmp_path / "stat"
        exchange = f"echo {another_program.pid} >{tmp_path}/new && mv {tmp_path}/new {pidfile}"
        stat.write_text(f'#!/bin/sh\n{exchange}\ncommand -p stat "$@"\n')
        stat.chmod(0o755)
        programs = f"{tmp_path}:{os.environ['PATH']}"
        before = pidfile.read_text()
        for shell in ("dash", "bash"):  # That of busybox is its own
            pidfile.write_text(before)
            os.chown(pidfile, NOBODY, NOBODY)
            server.logs.rotate(["access.log"])
            reopen(pidfile, server.logs.path("*.log "), shell=shell, path=programs).expect_silence()
            assert pidfile.read_text() == f"{another_program.pid}\n"
        assert another_program.poll() is None


def test_a_machine_without_a_tool(nginx: Nginx, tmp_path: Path) -> None:
    """Whichever it cannot find, it does not take a file for let go that somebody has open."""
    rotated = nginx.logs.path("access.log.1")
    with open(rotated, "a"):
        scripts = []
        for missing in TOOLS:
            programs = links(tmp_path / missing, *(tool for tool in TOOLS if tool != missing))
            scripts.append(start("-t", 0, nginx.directory / "pidfile", rotated, path=programs))
        assert {finish(script).returncode for script in scripts} <= {1, 2}


def test_what_no_log_can_be(nginx: Nginx, tmp_path: Path) -> None:
    """A second pidfile, say. A name, which may be made for the terminal, is shown without what that would obey."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(nginx.logs.path("access.log"))
    expected = {Path("/nowhere/\x1ba"): "/nowhere/?a: expected the path of a log"}
    for file in (tmp_path, tmp_path / "pipe", tmp_path / "link"):
        expected[file] = f"{file}: expected a log, found no regular file"
    for second in (tmp_path / "b.pid", tmp_path / "pidfile", tmp_path / "b.pid.oldbin"):
        second.write_text("1")
        expected[second] = f"{second}: expected a log; for one more server say -p {second}"
    for file, message in expected.items():
        for answer in in_each_shell(nginx.directory / "pidfile", file):
            assert message in answer.refused()


#: As systemd's answers, for a machine that does not run it.
SYSTEMCTL = """#!/bin/sh
[ "$*" = 'show --property=MainPID -- app.service' ] && echo MainPID={pid} || echo MainPID=0
"""


def test_the_main_process_of_a_unit(nginx: Nginx, tmp_path: Path, shell: str) -> None:
    logs = nginx.logs.path("*.log ")
    programs = links(tmp_path / "programs", "perl", *TOOLS)
    systemctl = programs / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(pid=nginx.arbiter))
    systemctl.chmod(0o755)
    for arguments in ["-u", "app.service"], ["-uapp.service", "--"], ["--unit=app.service"], ["--unit", "app.service"]:
        nginx.logs.rotate(["access.log"])
        reopen(*arguments, logs, shell=shell, path=programs).expect_silence()
        assert nginx.logs.path("access.log").exists()
    message = reopen("-u", "other", logs, shell=shell, path=programs).refused()
    assert "expected a systemd unit that runs" in message
    systemctl.write_text(SYSTEMCTL.format(pid=os.getpid()))
    message = reopen("-u", "app.service", logs, shell=shell, path=programs).refused()
    assert f"expected a gunicorn arbiter or nginx master, found process {os.getpid()}" in message
