"""What reopen.sh refuses: one message, exit status 2, and no signal to anybody."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

import psutil
import pytest
from properties import wait

from test_reopen.logrotation import DASH_FIRST, SHELLS, TOOLS, finish, in_each_shell, links, reopen, start
from test_reopen.nginx import Nginx


def refused(answer: "subprocess.CompletedProcess[str]") -> str:
    assert answer.returncode == 2, answer
    assert answer.stdout == ""
    [message] = answer.stderr.splitlines()
    assert message.startswith("reopen.sh: ") and message.endswith("; no signal was sent")
    assert message.isprintable()
    return message


def refusal(*arguments: object, shell: str = "sh") -> str:
    return refused(reopen(*arguments, shell=shell))


def refusals(*pidfiles: Path) -> List[Tuple[Path, str]]:
    """What each of them is refused with, in each shell: all at once, as each is tried for a second."""
    cases = [(pidfile, shell) for pidfile in pidfiles for shell in SHELLS]
    scripts = [start(pidfile, shell=shell) for pidfile, shell in cases]
    return [(pidfile, refused(finish(script))) for (pidfile, _), script in zip(cases, scripts)]


CONTENTS = ("", "root:$6$salt\n", "-1\n", "0\n", "12 34\n", "*\n", "\x1b[31m", "1" * 11, "\0" * 99)


def test_a_pidfile_that_names_no_process(tmp_path: Path) -> None:
    """What is in it is not shown: it may be another's secret, or made for the terminal."""
    pidfiles = [tmp_path / f"a pidfile {number}" for number in range(len(CONTENTS))]
    for pidfile, content in zip(pidfiles, CONTENTS):
        pidfile.write_text(content)
    for pidfile, message in refusals(*pidfiles):
        assert f"{pidfile}: expected a process id, found something else; no signal was sent" in message


def test_a_stale_pidfile(tmp_path: Path) -> None:
    pidfile = tmp_path / "pidfile"
    pidfile.write_text(f"{2**22 + 1}\n")
    for _, message in refusals(pidfile):
        assert f"{pidfile}: stale, there is no such process; is the server running?" in message


def test_no_regular_file_for_a_pidfile(tmp_path: Path) -> None:
    """Reading from a pipe would wait for a writer, and so would logrotate. A link leads to a file of anybody's."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "process").write_text(str(os.getpid()))
    (tmp_path / "link").symlink_to("process")
    for pidfile, message in refusals(tmp_path, *(tmp_path / name for name in ("missing", "pipe", "link"))):
        assert f"{pidfile}: expected a pidfile, found no regular file to read; is the server running?" in message


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_a_pipe_that_takes_the_place_of_a_pidfile(tmp_path: Path, shell: str) -> None:
    pidfile = tmp_path / "pidfile"
    pidfile.touch()
    script = start(pidfile, shell=shell)
    process = psutil.Process(script.pid)
    wait.until(lambda: process.children(recursive=True), lambda: "the script does not wait")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").rename(pidfile)
    # Between a look at the file and its opening, a pipe holds it up for 5 s.
    assert "expected a pidfile, " in refused(finish(script, timeout=25))


def test_a_pidfile_that_cannot_be_opened_now(tmp_path: Path) -> None:
    """Its owner can hold up for 45 s who opens it, by a lease that he does not give back."""
    pidfile = tmp_path / "pidfile"
    pidfile.write_text(str(os.getpid()))
    with open(pidfile, "r+") as leased, ignored(signal.SIGIO):
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        answers = in_each_shell("-t", 0, pidfile, timeout=25)
        left = [one for one in psutil.process_iter(["cmdline"]) if str(pidfile) in (one.info["cmdline"] or ())]
    for answer in answers.values():
        message = next(line for line in answer.stderr.splitlines() if line.startswith("reopen.sh: "))
        assert (answer.returncode, message) == (
            2,
            f"reopen.sh: {pidfile}: expected a pidfile, cannot read it; no signal was sent",
        )
    assert not left, "what opened it lives on"


@contextlib.contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


#: Not killed by SIGUSR1, but it would tell. It has a name that might do something to a terminal.
HANDLES_USR1 = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit("SIGUSR1 came"))
open("/proc/self/comm", "w").write("\x1b[31mpython\\n")
print("ready", flush=True)
time.sleep(600)
"""
#: SIGUSR1 would kill it.
DIES_OF_USR1 = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.mark.parametrize("program, name", [(HANDLES_USR1, "?[31mpython"), (DIES_OF_USR1, "python")])
def test_the_pid_of_another_program(tmp_path: Path, program: str, name: str) -> None:
    """It may well have gunicorn in its command line, as an editor or a tail of a log has."""
    with running(program, "gunicorn") as process:
        pidfile = tmp_path / "pidfile"
        pidfile.write_text(str(process.pid))
        for _, message in refusals(pidfile):
            assert f"expected a gunicorn arbiter or nginx master, found process {process.pid} ({name}" in message
        assert process.poll() is None


@contextlib.contextmanager
def running(program: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.root
def test_a_pidfile_of_somebody_who_may_not_signal_that_process(tmp_path: Path) -> None:
    """So nobody who may write pidfiles makes root signal what he could not signal himself."""
    pidfile = tmp_path / "pidfile"
    pidfile.write_text("1")
    if os.geteuid() == 0:
        os.chown(pidfile, 65534, 65534)
    for _, message in refusals(pidfile):
        if os.geteuid() == 0:
            assert "belongs to user 65534, but the process that it names to user 0" in message
        else:  # Whom the kernel keeps from it
            assert "expected a gunicorn arbiter or nginx master, found process 1" in message


@pytest.mark.parametrize("seconds", ["", "-1", "1.5", "ten", "1000000"])
def test_a_timeout_that_is_not_whole_seconds(seconds: str) -> None:
    assert f"-t: expected whole seconds, found '{seconds}'" in refusal("-t", seconds, "pidfile")


@pytest.mark.parametrize("shell", SHELLS)
def test_arguments(shell: str) -> None:
    assert "expected a PIDFILE; see reopen.sh -h" in refusal(shell=shell)
    assert "expected a PIDFILE; see reopen.sh -h" in refusal("-t", 5, "--", shell=shell)
    assert "unknown option: -x" in refusal("-x", "pidfile", shell=shell)
    assert "unknown option: --pid" in refusal("--pid=a", "pidfile", shell=shell)
    assert "-t: expected whole seconds, found ''" in refusal("-t", shell=shell)
    for option in ("-h", "--help"):
        answer = reopen(option, shell=shell)
        assert answer.returncode == 0
        assert answer.stdout.startswith(
            "usage: reopen.sh [-t SECONDS] [-p PIDFILE] ... {PIDFILE | -u UNIT} [FILE ...]\n"
        )
        assert "default: 40" in answer.stdout and answer.stdout.endswith("or no such server\n")


def test_a_machine_without_a_tool(nginx: Nginx, tmp_path: Path) -> None:
    """Whichever it cannot find, it does not take a file for let go that somebody has open."""
    rotated = nginx.logs.path("access.log.1")
    with open(rotated, "a"):
        scripts = []
        for missing in TOOLS:
            programs = links(tmp_path / missing, *(tool for tool in TOOLS if tool != missing))
            scripts.append(start("-t", 0, nginx.directory / "pidfile", rotated, path=programs))
        assert {finish(script).returncode for script in scripts} <= {1, 2}
    rotated.unlink()


def test_what_no_log_can_be(nginx: Nginx, tmp_path: Path) -> None:
    """Its name, which may be made for the terminal, is shown without what that would obey."""
    pidfile = nginx.directory / "pidfile"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(nginx.logs.path("access.log"))
    for shell in SHELLS:
        assert "/nowhere/?a: expected the path of a log" in refusal(pidfile, "/nowhere/\x1ba", shell=shell)
        for file in (tmp_path, tmp_path / "pipe", tmp_path / "link"):
            assert f"{file}: expected a log, found no regular file" in refusal(pidfile, file, shell=shell)
        for second in ("b.pid", "pidfile", "b.pid.oldbin"):
            (tmp_path / second).write_text("1")
            message = refusal(pidfile, tmp_path / second, shell=shell)
            assert f"{tmp_path / second}: expected a log; for one more server say -p {tmp_path / second}" in message


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_made_for_the_terminal(shell: str) -> None:
    assert "-t: expected whole seconds, found '?[31m'" in refusal("-t", "\x1b[31m", "pidfile", shell=shell)
    assert "/no?where: expected a pidfile, found no regular file to read" in refusal("/no\nwhere", shell=shell)


#: As systemd's answers, for a machine that does not run it.
SYSTEMCTL = """#!/bin/sh
case "$*" in
'show --property=MainPID -- app.service') echo MainPID={pid} ;;
*) echo MainPID=0 ;;
esac
"""


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_the_main_process_of_a_unit(nginx: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    assert "app.service: expected a systemd unit that runs" in refusal("-u", "app.service", shell=shell)
    logs = f"{nginx.logs.directory}/*.log "
    programs = links(tmp_path / "programs", "perl", *TOOLS)
    systemctl = programs / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(pid=nginx.process.pid))
    systemctl.chmod(0o755)
    for arguments in (
        ["-u", "app.service"],
        ["-uapp.service", "--"],
        ["--unit=app.service"],
        ["--unit", "app.service"],
    ):
        nginx.logs.rotate(["access.log"])
        answer = reopen(*arguments, logs, shell=shell, path=programs)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert nginx.logs.path("access.log").exists()
    assert "expected a systemd unit that runs" in refused(reopen("-u", "other", logs, shell=shell, path=programs))
    systemctl.write_text(SYSTEMCTL.format(pid=os.getpid()))
    message = refused(reopen("-u", "app.service", logs, shell=shell, path=programs))
    assert f"expected a gunicorn arbiter or nginx master, found process {os.getpid()}" in message


@pytest.mark.parametrize("shell", SHELLS)
def test_all_pidfiles_of_a_folder(nginx: Nginx, shell: str) -> None:
    """A second server is not taken for a file: neither is signalled."""
    with Nginx() as second:
        pidfiles = sorted([nginx.directory / "a.pid", nginx.directory / "b.pid"])
        for server, pidfile in zip((nginx, second), pidfiles):
            pidfile.write_text(str(server.process.pid))
        assert f"for one more server say -p {pidfiles[1]}" in refusal(*pidfiles, shell=shell)
        nginx.logs.rotate(["access.log"])
        second.logs.rotate(["access.log"])
        logs = [f"{server.logs.directory}/*.log " for server in (nginx, second)]
        answer = reopen("-p", pidfiles[1], pidfiles[0], *logs, shell=shell)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert second.logs.path("access.log").exists()
