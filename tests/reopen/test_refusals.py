"""What reopen.sh refuses: one message, exit status 2, and no signal to anybody."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, Optional

import pytest
from environments import Environment

from reopen.conftest import gunicorn
from reopen.logrotation import reopen


def refusal(*arguments: object, user: Optional[int] = None) -> str:
    answer = reopen(*arguments, user=user)
    assert answer.returncode == 2
    assert answer.stdout == ""
    [message] = answer.stderr.splitlines()
    assert message.startswith("reopen.sh: ") and message.endswith("; no signal was sent")
    return message


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("", "expected a process id, found ''"),
        ("gunicorn\n", "expected a process id, found 'gunicorn'"),
        ("-1\n", "expected a process id, found '-1'"),
        ("0\n", "expected a process id, found '0'"),
        ("12 34\n", "expected a process id, found '12 34'"),
        (f"{2**22 + 1}\n", f"stale, there is no process {2**22 + 1}; is the server running?"),
    ],
)
def test_a_pidfile_that_names_no_process(tmp_path: Path, content: str, complaint: str) -> None:
    pidfile = tmp_path / "a pidfile"
    pidfile.write_text(content)
    assert f"{pidfile}: {complaint}" in refusal(pidfile)


def test_no_pidfile(tmp_path: Path) -> None:
    assert "found no file to read; is the server running?" in refusal(tmp_path / "pidfile")
    assert "expected a pidfile, found no regular file" in refusal(tmp_path)


def test_a_pipe_for_a_pidfile(tmp_path: Path) -> None:
    """Reading from it would wait for a writer, and so would logrotate."""
    os.mkfifo(tmp_path / "pidfile")
    for pidfile in (tmp_path / "pidfile", "/dev/null"):
        assert f"{pidfile}: expected a pidfile, found no regular file" in refusal(pidfile)


#: Not killed by SIGUSR1, but it would tell.
HANDLES_USR1 = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit("SIGUSR1 came"))
print("ready", flush=True)
time.sleep(600)
"""
#: SIGUSR1 would kill it, though it has gunicorn in its name.
NAMED_GUNICORN = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.mark.parametrize("command", [[HANDLES_USR1], [NAMED_GUNICORN, "gunicorn"]])
def test_the_pid_of_another_program(tmp_path: Path, command: List[str]) -> None:
    pidfile = tmp_path / "pidfile"
    process = subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        pidfile.write_text(str(process.pid))
        assert f"expected a gunicorn arbiter or nginx master, found process {process.pid} (python" in refusal(pidfile)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("seconds", ["", "-1", "1.5", "ten", "1000000"])
def test_a_timeout_that_is_not_whole_seconds(seconds: str) -> None:
    assert f"-t: expected whole seconds, found '{seconds}'" in refusal("-t", seconds, "pidfile")


def test_arguments() -> None:
    assert "expected a PIDFILE; see reopen.sh -h" in refusal()
    assert "unknown option or no value: -x" in refusal("-x", "pidfile")
    assert "unknown option or no value: -t" in refusal("-t")
    answer = reopen("-h")
    assert answer.returncode == 0
    assert answer.stdout.startswith("usage: reopen.sh [-t SECONDS] PIDFILE [FILE ...]\n")


TOOLS = ["cat", "grep", "ls", "readlink", "sleep", "sort", "tr"]


@pytest.mark.parametrize("missing", TOOLS)
def test_a_machine_without_a_tool(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without readlink no file would look like a rotated one."""
    for tool in {"sh", *TOOLS} - {missing}:
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"expected {missing} on the PATH, found none" in refusal("pidfile")


def test_a_file_to_wait_for_that_is_not_there(environment: Environment) -> None:
    with gunicorn(environment) as server:
        assert "/nowhere: expected a rotated file, found none" in refusal(server.directory / "pidfile", "/nowhere")
        assert "Handling signal: usr1" not in server.complaints()


def test_a_process_of_another_user() -> None:
    pidfile = Path(tempfile.mkdtemp()) / "pidfile"
    try:
        pidfile.write_text("1")
        pidfile.parent.chmod(0o755)
        complaint = refusal(pidfile, user=65534 if os.geteuid() == 0 else None)
        assert "may not see which files process 1 has open; run this as root" in complaint
    finally:
        shutil.rmtree(pidfile.parent)
