"""What reopen.sh refuses: one message, exit status 2, and no signal to anybody."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import psutil
import pytest
from environments import NOBODY

from test_reopen.conftest import ROOT_ONLY, Nginx
from test_reopen.logrotation import SHELLS, TOOLS, Script, finish, found, in_each_shell, links, reopen, start

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


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str) -> None:
    for answer in in_each_shell(option):
        assert answer.returncode == 0
        usage = "usage: reopen.sh [-t SECONDS] [-p PIDFILE] ... {PIDFILE | -u UNIT} [FILE ...]\n"
        assert answer.stdout.startswith(usage) and answer.stdout.endswith("or no such server\n")
        assert "default: 40" in answer.stdout


#: SIGUSR1 ends it. It has a name that might do something to a terminal.
HANDLES_USR1 = """
import signal, sys
signal.signal(signal.SIGUSR1, sys.exit)
open("/proc/self/comm", "w").write("\x1b[31mpython")
print(flush=True)
signal.pause()
"""


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
def test_a_pidfile_that_is_exchanged_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_program: Script
) -> None:
    """Its owner, and the process, are those of the file that was opened."""
    with Nginx(NOBODY) as server:
        pidfile, stat = server.directory / "pidfile", tmp_path / "stat"
        exchange = f"echo {another_program.pid} >{tmp_path}/new && mv {tmp_path}/new {pidfile}"
        stat.write_text(f'#!/bin/sh\n{exchange}\nexec {found("stat")} "$@"\n')
        stat.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        before = pidfile.read_text()
        for shell in ("dash", "bash"):  # That of busybox is its own
            pidfile.write_text(before)
            os.chown(pidfile, NOBODY, NOBODY)
            server.logs.rotate(["access.log"])
            reopen(pidfile, server.logs.path("*.log "), shell=shell).expect_silence()
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
