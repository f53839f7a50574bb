"""Which files reopen.sh waits for: a file that this process has open tells."""

import contextlib
import os
from pathlib import Path
from typing import List, TextIO

import pytest
from environments import Environment

from test_reopen.conftest import Nginx, gunicorn
from test_reopen.logrotation import Script, finish, in_each_shell, start

#: What logrotate makes of access.log, and what it passes to a script: $1 and, if the script is not shared, $2.
ROTATIONS = [
    ("access.log-20261129", ["{logs}/access.log", "{logs}/access.log-20261129"]),
    ("access.log-20261129", ["{logs}/*.log "]),
    ("access.log-20261129", ['"{spaced}"/*.log /nothing/*.log\n']),
    ("access.log-20261129", ["{logs}/error.log {logs}/access.log "]),
    ("access.log-20261129", ["{logs}/access.log"]),  # As 3.8.6 does
    ("access.log.1", ["{logs}/*.log "]),
    ("access.log_2026-11-29", ["{logs}/*.log "]),
    ("access-20261129.log", ["{logs}/access.log", "{logs}/access-20261129.log"]),
    ("access-20261129.log", ["{logs}/*.log "]),
    ("access-20261129-1795443875.log", ["{logs}/access.log "]),
    ("old/access.log-20261129", ["{logs}/access.log", "{logs}/old/access.log-20261129"]),
    ("old/access.log-20261129", ["{logs}/*.log "]),
    ("old/access-20261129.log", ["{logs}/*.log "]),
    ("old/access-20261129.log", ["{logs}/old/*.log"]),  # By the olddir itself
    ("access.log.tmp", ["{logs}/access.log", "{logs}/access.log-20261129"]),  # By renamecopy
    ("with spaces.log-20261129", ["{spaced}/with spaces.log"]),
    ("with spaces.log-20261129", ['"{spaced}/with spaces.log" ']),
]

#: What is no rotated file, beside access.log.1, which is one.
CURRENT = ("access.log", "gunicorn-8001.log", "requests_2026-11-23.log", "access.log.pos", "access.log.1.gz")

NAMES = (
    *("access.log.1", "access.log-20261123", "access.log-2026-11-23-1795443875", "access.log-20261123T101500Z"),
    *("access.log_20261123", "access.log-20261123+0100", "AUDIT-20261123", "with spaces.log.12", "app-20261123.log"),
)
UNRELATED = (
    *(("gunicorn-8001.log", "a"), ("requests_2026-11-23.log", "a"), ("part2", "a"), ("2026-11-23", "a")),
    *(("export", "w"), ("upload.1", "w+"), (__file__, "r"), ("*", "a")),
)

OPENS = """
import sqlite3, tempfile

database = sqlite3.connect("database.1")
database.execute("create table if not exists numbers (number)")
temporary = tempfile.TemporaryFile(prefix="temporary-1")
opened = [open(name, mode) for name, mode in {files!r}]
"""


@pytest.mark.parametrize("create", [False, True], ids=["", "create"])
def test_what_logrotate_passes(nginx: Nginx, tmp_path: Path, create: bool, shell: str) -> None:
    """Whether or not it has already made new logs. All cases at once, each in a folder of its own: they only wait."""

    def start_all() -> List[Script]:
        return [start("-t", 0, nginx.directory / "pidfile", *arguments, shell=shell) for arguments in passed]

    held: List[TextIO] = []
    passed = []
    with contextlib.ExitStack() as opened:
        for number, (rotated, templates) in enumerate(ROTATIONS):
            spaced, logs = tmp_path / f"some logs {number}", tmp_path / f"logs{number}"
            (spaced / "old").mkdir(parents=True)
            logs.symlink_to(spaced)  # Only what is in quotes has blanks in its name.
            for name in ("access.log", "error.log", "with spaces.log") if create else ("error.log",):
                opened.enter_context(open(spaced / name, "a"))
            held.append(opened.enter_context(open(spaced / rotated, "a")))
            passed.append([one.format(logs=logs, spaced=spaced) for one in templates])
        for file, answer in zip(held, map(finish, start_all())):
            assert answer.writers() == {os.getpid(): [f"(python, not signalled): {file.name}"]}
            file.close()
        for answer in map(finish, start_all()):
            answer.expect_silence()


@pytest.mark.parametrize("argument", ["*.log ", "access.log"])
def test_what_is_not_rotated_is_not_waited_for(nginx: Nginx, argument: str) -> None:
    nginx.logs.path("access.log.1").touch()
    with contextlib.ExitStack() as opened:
        for name in CURRENT:
            opened.enter_context(open(nginx.logs.path(name), "a"))
        for answer in in_each_shell("-t", 0, nginx.directory / "pidfile", nginx.logs.path(argument)):
            answer.expect_silence()


def test_files_given_are_waited_for_whatever_they_are_called(nginx: Nginx) -> None:
    pidfile, logs = nginx.directory / "pidfile", nginx.logs.directory
    written, other = logs / "access.log.old", logs / "20261123 of access"
    other.touch()
    with open(written, "w"):
        for answer in in_each_shell(pidfile, other):
            answer.expect_silence()
        for answer in in_each_shell("-t", 0, pidfile, other, written):
            assert answer.writers() == {os.getpid(): [f"(python, not signalled): {written}"]}


def test_nothing_has_been_rotated(nginx: Nginx) -> None:
    for answer in in_each_shell(nginx.directory / "pidfile"):
        assert answer.returncode == 1
        assert answer.stderr == "reopen.sh: found no rotated file; name it: reopen.sh PIDFILE FILE\n"


def test_without_files_those_are_waited_for_that_have_the_name_of_a_rotated_log(environment: Environment) -> None:
    opens = OPENS.format(files=[*UNRELATED, *((name, "a") for name in NAMES)])
    with gunicorn(environment, "gthread", opens) as server:
        for answer in in_each_shell("-t", 0, server.directory / "pidfile"):
            said = [what for whats in answer.writers().values() for what in whats]
            assert {Path(what.partition(": ")[2]).name for what in said} == set(NAMES)
