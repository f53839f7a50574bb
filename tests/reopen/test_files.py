"""Which files reopen.sh takes for rotated ones."""

from pathlib import Path
from typing import Iterator, Set

import pytest
from environments import Environment
from properties.server import Server

from reopen.conftest import gunicorn
from reopen.logrotation import reopen

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


def named(complaint: str) -> Set[str]:
    """The files in the complaint of reopen.sh about processes that have not let go."""
    return {line.split(": ", 1)[1] for line in complaint.splitlines()[1:]}


@pytest.fixture(scope="module")
def server(environment: Environment) -> Iterator[Server]:
    with gunicorn(environment, "gthread", OPENS.format(files=UNRELATED)) as server:
        yield server


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_unrelated_files_are_not_waited_for(server: Server, shell: str) -> None:
    server.logs.rotate()
    answer = reopen(server.directory / "pidfile", shell=shell)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not server.logs.held(server.pids("all"), server.logs.rotated())


def test_files_given_are_waited_for_whatever_they_are_called(server: Server) -> None:
    pidfile, written = server.directory / "pidfile", server.directory / "export-20261123"
    answer = reopen("-t", 0, pidfile, __file__)
    assert (answer.returncode, answer.stderr) == (0, "")
    answer = reopen("-t", 0, pidfile, __file__, written)
    assert (answer.returncode, named(answer.stderr)) == (1, {str(written)})


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_files_with_the_name_of_a_rotated_log_are_waited_for(environment: Environment, shell: str) -> None:
    with gunicorn(environment, "gthread", OPENS.format(files=[(name, "a") for name in ROTATED])) as server:
        (server.directory / "removed.log.1").unlink()
        answer = reopen("-t", 0, server.directory / "pidfile", shell=shell)
    assert answer.returncode == 1
    assert {Path(file).name for file in named(answer.stderr)} == {
        *ROTATED[:-2],
        "new?line \\n.log.1",
        "removed.log.1 (deleted)",
    }
