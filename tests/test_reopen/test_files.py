"""Which files reopen.sh takes for rotated ones."""

import os
import signal
from typing import Iterator

import pytest
from environments import Environment
from properties.server import Server

from test_reopen.conftest import gunicorn
from test_reopen.logrotation import DASH_FIRST, SHELLS, files, in_each_shell, named, reopen

ROTATED = (
    "access.log.1",
    "access.log-20261123",
    "access.log-2026-11-23-1795443875",
    "access.log-20261123T101500Z",
    "access.log_20261123",
    "access.log-20261123+0100",
    "AUDIT-20261123",
    "with spaces.log.12",
    "new\nline \\n.log.1",
    "removed.log.1",
)
UNRELATED = (
    ("gunicorn-8001.log", "a"),
    ("requests_2026-11-23.log", "a"),
    ("part2", "a"),
    ("2026-11-23", "a"),
    ("export-20261123", "w"),
    ("upload.1", "w+"),
    (__file__, "r"),
)

OPENS = """
import sqlite3, tempfile

directory = os.path.dirname(checkpoints.CONTROL)
database = sqlite3.connect(directory + "/database.1")
database.execute("create table if not exists numbers (number)")
temporary = tempfile.TemporaryFile(prefix="temporary-1")
opened = [open(os.path.join(directory, name), mode) for name, mode in {files!r}]
"""


#: What other scripts than logrotate make of x.log.
ODD = (
    *("old/{}.log", "archive/2026-11-23/{}.log", "{}.old", "{}.log.old", "{}.log.bak", "{}.log~", "{}.log.prev"),
    *("{}-20261123.log", "20261123-{}.log", "{}.2026-11-23.log", "{}.log.Mon", "{}.log.20261123.saved"),
)

LOGS = """
for number in range({number}):
    logging.getLogger(str(number)).addHandler(logging.FileHandler("%d.log" % number))
"""


@pytest.fixture(scope="module")
def server(environment: Environment) -> Iterator[Server]:
    with gunicorn(environment, "gthread", OPENS.format(files=UNRELATED)) as server:
        yield server


@pytest.mark.parametrize("shell", SHELLS)
def test_unrelated_files_are_not_waited_for(server: Server, shell: str) -> None:
    server.logs.rotate()
    answer = reopen(server.directory / "pidfile", shell=shell)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not server.logs.held(server.pids("all"), server.logs.rotated())


@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_has_been_rotated(server: Server, shell: str) -> None:
    answer = reopen(server.directory / "pidfile", shell=shell)
    assert answer.returncode == 0
    assert "found no rotated file of this server" in answer.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_files_given_are_waited_for_whatever_they_are_called(server: Server, shell: str) -> None:
    pidfile, written = server.directory / "pidfile", server.directory / "export-20261123"
    answer = reopen(pidfile, __file__, shell=shell)
    assert (answer.returncode, answer.stderr) == (0, "")
    answer = reopen("-t", 0, pidfile, __file__, written, shell=shell)
    assert (answer.returncode, files(answer.stderr)) == (1, {written.name})


def test_files_with_the_name_of_a_rotated_log_are_waited_for(environment: Environment) -> None:
    with gunicorn(environment, "gthread", OPENS.format(files=[(name, "a") for name in ROTATED])) as server:
        (server.directory / "removed.log.1").unlink()
        answers = in_each_shell("-t", 0, server.directory / "pidfile")
    for shell, answer in answers.items():
        # The stat of busybox writes a newline as it is
        odd = {"new?line \\n.log.1"} if shell != "busybox" else set()
        assert answer.returncode == 1
        assert files(answer.stderr) == {*ROTATED[:-2], *odd, "removed.log.1 (deleted)"}


@pytest.mark.parametrize("shell", DASH_FIRST)
def test_files_that_are_exchanged_for_new_ones_are_waited_for(environment: Environment, shell: str) -> None:
    """Whatever they are called: one of the processes that write to them shows what is to become of them."""
    with gunicorn(environment, "gthread", LOGS.format(number=len(ODD))) as server:
        stopped, other = server.workers()
        os.kill(stopped, signal.SIGSTOP)
        rotated = [server.directory / name.format(number) for number, name in enumerate(ODD)]
        for number, path in enumerate(rotated):
            path.parent.mkdir(parents=True, exist_ok=True)
            (server.directory / f"{number}.log").rename(path)
        answer = reopen("-t", 0, server.directory / "pidfile", shell=shell)
        assert answer.returncode == 1
        assert list(named(answer.stderr)) == [stopped]
        assert files(answer.stderr) == {path.name for path in rotated}
