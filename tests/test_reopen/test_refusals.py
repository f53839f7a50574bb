"""What reopen.sh refuses: one message, exit status 2, and no signal to anybody."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import psutil
import pytest
from environments import Environment
from properties import wait

from test_reopen.conftest import NOT_DUMPABLE, gunicorn, without_ptrace
from test_reopen.logrotation import REOPEN, SHELLS, finish, found, in_each_shell, reopen, start
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


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "content",
    ["", "root:$6$salt\n", "-1\n", "0\n", "12 34\n", "*\n", "\x1b[31m", "1" * 11, "\0" * 99],
    ids=repr,
)
def test_a_pidfile_that_names_no_process(tmp_path: Path, content: str, shell: str) -> None:
    """What is in it is not shown: it may be another's secret, or made for the terminal."""
    pidfile = tmp_path / "a pidfile"
    pidfile.write_text(content)
    message = refusal(pidfile, shell=shell)
    assert f"{pidfile}: expected a process id, found something else; no signal was sent" in message


@pytest.mark.parametrize("shell", SHELLS)
def test_a_stale_pidfile(tmp_path: Path, shell: str) -> None:
    pidfile = tmp_path / "pidfile"
    pidfile.write_text(f"{2**22 + 1}\n")
    assert f"{pidfile}: stale, there is no such process; is the server running?" in refusal(pidfile, shell=shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_no_pidfile(tmp_path: Path, shell: str) -> None:
    assert "found no file to read; is the server running?" in refusal(tmp_path / "pidfile", shell=shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_no_regular_file_for_a_pidfile(tmp_path: Path, shell: str) -> None:
    """Reading from a pipe would wait for a writer, and so would logrotate. A link leads to a file of anybody's."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "process").write_text(str(os.getpid()))
    (tmp_path / "link").symlink_to("process")
    for pidfile in (tmp_path, tmp_path / "pipe", tmp_path / "link", "/dev/null"):
        assert f"{pidfile}: expected a pidfile, found no regular file" in refusal(pidfile, shell=shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pipe_that_takes_the_place_of_a_pidfile(tmp_path: Path, shell: str) -> None:
    pidfile = tmp_path / "pidfile"
    pidfile.touch()
    script = start("-t", 0, pidfile, shell=shell)
    process = psutil.Process(script.pid)
    wait.until(lambda: len(process.children(recursive=True)) == 3, lambda: "the script does not wait")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").rename(pidfile)
    answer = finish(script, timeout=25)
    # Between a look at the file and its opening, a pipe holds up what opens it for as long as the script lives.
    if not answer.stderr.startswith("reopen.sh: gave up after 10 s"):
        assert re.search("expected a pidfile, (found no regular file|cannot read it)", refused(answer))


def test_a_pidfile_that_cannot_be_opened_now(tmp_path: Path) -> None:
    """Its owner can hold up for 45 s who opens it, by a lease that he does not give back."""
    pidfile = tmp_path / "pidfile"
    pidfile.write_text(str(os.getpid()))
    with open(pidfile, "r+") as leased, ignored(signal.SIGIO):
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        answers = in_each_shell("-t", 0, pidfile, timeout=25)
        left = [one for one in psutil.process_iter(["cmdline"]) if str(pidfile) in (one.info["cmdline"] or ())]
    for answer in answers.values():
        assert answer.returncode == 1
        assert answer.stderr.startswith("reopen.sh: gave up after 10 s; whether processes still write to rotated files")
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


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "program, name", [(HANDLES_USR1, "?[31mpython"), (DIES_OF_USR1, "python")], ids=["handles", "dies"]
)
def test_the_pid_of_another_program(tmp_path: Path, program: str, name: str, shell: str) -> None:
    """It may well have gunicorn in its command line, as an editor or a tail of a log has."""
    with running(program, "gunicorn") as process:
        pidfile = tmp_path / "pidfile"
        pidfile.write_text(str(process.pid))
        expected = f"expected a gunicorn arbiter or nginx master, found process {process.pid} ({name}"
        assert expected in refusal(pidfile, shell=shell)
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
@pytest.mark.parametrize("shell", SHELLS)
def test_a_pidfile_of_somebody_who_may_not_signal_that_process(tmp_path: Path, shell: str) -> None:
    """So nobody who may write pidfiles makes root signal what he could not signal himself."""
    pidfile = tmp_path / "pidfile"
    pidfile.write_text("1")
    if os.geteuid() == 0:
        os.chown(pidfile, 65534, 65534)
    owner = pidfile.stat().st_uid
    assert f"belongs to user {owner}, but the process that it names to user 0" in refusal(pidfile, shell=shell)


@pytest.mark.parametrize("seconds", ["", "-1", "1.5", "ten", "1000000"])
def test_a_timeout_that_is_not_whole_seconds(seconds: str) -> None:
    assert f"-t: expected whole seconds, found '{seconds}'" in refusal("-t", seconds, "pidfile")


@pytest.mark.parametrize("shell", SHELLS)
def test_arguments(shell: str) -> None:
    assert "expected a PIDFILE; see reopen.sh -h" in refusal(shell=shell)
    assert "expected a PIDFILE; see reopen.sh -h" in refusal("-t", 5, shell=shell)
    assert "unknown option or no value: -x" in refusal("-x", "pidfile", shell=shell)
    assert "unknown option or no value: -t" in refusal("-t", shell=shell)
    for option in ("-h", "--help"):
        answer = reopen(option, shell=shell)
        assert answer.returncode == 0
        assert answer.stdout.startswith("usage: reopen.sh [-t SECONDS] [-p PIDFILE] ... PIDFILE [FILE ...]\n")


TOOLS = re.findall(r"^for tool in (.*);", REOPEN.read_text(), re.MULTILINE)[0].split()


@pytest.mark.parametrize("missing", TOOLS)
def test_a_machine_without_a_tool(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without readlink no file would look like a rotated one."""
    for tool in {"sh", *TOOLS} - {missing}:
        (tmp_path / tool).symlink_to(found(tool))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"expected {missing} on the PATH, found none" in refusal("pidfile")


def test_a_file_to_wait_for_that_is_not_there(environment: Environment) -> None:
    """Its name, which may be made for the terminal, is shown without what that would obey."""
    with gunicorn(environment) as server:
        for shell in SHELLS:
            message = refusal(server.directory / "pidfile", "/no\x1b[31mwhere\n", shell=shell)
            assert "/no?[31mwhere?: expected a rotated file, found none" in message
        assert "Handling signal: usr1" not in server.complaints()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_made_for_the_terminal(shell: str) -> None:
    assert "-t: expected whole seconds, found '?[31m'" in refusal("-t", "\x1b[31m", "pidfile", shell=shell)
    assert "/no?where: expected a pidfile, found no file to read" in refusal("/no\nwhere", shell=shell)


def test_a_pidfile_that_is_exchanged_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of its directory must not have a file of root's taken for it."""
    with Nginx() as server:
        pidfile, stat = server.directory / "pidfile", tmp_path / "stat"
        stat.write_text(
            f'#!/bin/sh\ncp {pidfile} {tmp_path}/new && mv -f {tmp_path}/new {pidfile}\nexec {found("stat")} "$@"\n'
        )
        stat.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        for shell in ("dash", "bash"):  # That of busybox is its own
            assert "expected a pidfile, cannot read it" in refusal(pidfile, shell=shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_how_long_it_waits(tmp_path: Path, shell: str) -> None:
    """40 seconds, as its help says, and 10 more if it cannot even look."""
    assert "default 40:" in reopen("-h", shell=shell).stdout
    script = start(tmp_path / "pidfile", shell=shell)
    process = psutil.Process(script.pid)

    def waits() -> bool:
        return any(child.cmdline()[-2:] == ["sleep", "50"] for child in process.children())

    wait.until(waits, lambda: f"{[child.cmdline() for child in process.children()]}")
    assert finish(script).returncode == 2


@pytest.mark.root
@pytest.mark.parametrize("shell", SHELLS)
def test_a_process_that_cannot_be_looked_into(tmp_path: Path, shell: str) -> None:
    with running(f"{NOT_DUMPABLE}\n{DIES_OF_USR1}") as process:
        pidfile = tmp_path / "pidfile"
        pidfile.write_text(str(process.pid))
        complaint = refused(reopen(pidfile, shell=shell, prefix=without_ptrace()))
        assert f"process {process.pid}: may not see which files it has open" in complaint
        assert "root with CAP_SYS_PTRACE" in complaint
