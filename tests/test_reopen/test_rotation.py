"""logrotate with the report's configuration, compressing at once, and reopen.sh as postrotate."""

import os
import re
import signal
from concurrent import futures
from pathlib import Path
from typing import Any, Sequence

import environments
import pytest
from environments import NOBODY
from properties.clients import Load
from properties.logs import NAMES
from properties.server import Server

from test_reopen.conftest import REOPEN, ROOT_ONLY, Logrotate, Nginx, gunicorn

SHARED = ("sharedscripts", "sharedscripts\nextension .log", "sharedscripts\nolddir old")

#: What the script is given, and what logrotate does.
WAYS = [
    *(('"$@"', directives) for directives in ("", "extension .log", "olddir old", *SHARED)),
    ("", "sharedscripts"),
    ('"$1"-[0-9]*', "sharedscripts"),
]


def rotate_under_load(
    server: Server, rotations: int, prefix: Sequence[str] = (), broken: bool = False, **how: Any
) -> None:
    """Nothing is lost or doubled, and gzip has nothing to say; prefix runs logrotate, and how is Logrotate's."""
    logrotate = Logrotate(server.logs, **how)
    with Load(server.socket, 16) as load:
        for _ in range(rotations):
            load.wait_for_answers(16)
            logrotate.rotate(prefix)
        load.wait_for_answers(16)
    assert broken or not load.broken
    server.logs.expect_exactly_once(load.requests, ["access.log"] if isinstance(server, Nginx) else NAMES)


@pytest.mark.parametrize("files, directives", WAYS)
def test_every_line_once(server: Server, files: str, directives: str, rotations: int) -> None:
    """With sharedscripts, $1 is the pattern and a blank. Then nothing has the name of the last of the files."""
    postrotate = f"'{REOPEN}' '{server.directory}/pidfile' {files}"
    rotate_under_load(server, rotations, postrotate=postrotate, directives=directives)
    assert not server.exits()
    assert server.stderr() == ""


@pytest.mark.root
def test_every_line_once_with_nginx(nginx: Nginx, rotations: int) -> None:
    rotate_under_load(nginx, rotations)


def test_every_line_once_while_workers_come_and_go(server: Server, rotations: int) -> None:
    with futures.ThreadPoolExecutor() as pool:
        rotating = pool.submit(rotate_under_load, server, rotations // 2, broken=True)
        while not rotating.done():
            for number in signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU:
                os.kill(server.arbiter, number)
                futures.wait([rotating], timeout=0.5)
    rotating.result()
    assert len(server.exits()) >= rotations / 10
    assert not [death for death in server.deaths() if "SIGTERM" not in death and "exited with 0" not in death]


def test_a_stopped_worker_is_named_and_the_file_kept(server: Server) -> None:
    logrotate = Logrotate(server.logs, "-t 0")
    request = server.get()
    stopped, _ = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    answer = logrotate.run()
    os.kill(stopped, signal.SIGCONT)
    assert answer.returncode == 1
    kept = [str(file) for file in server.logs.directory.glob("*.log-*")]
    assert len(kept) == len(NAMES) and not any(file.endswith(".gz") for file in kept)
    said = re.findall(r"  process (\d+) \([\w, ]+\): (.*)\n", answer.stdout)
    assert sorted(said) == sorted((str(stopped), file) for file in kept)
    following = server.get()
    Logrotate(server.logs).rotate()
    assert not server.logs.not_exactly_once([request, following]), "the next rotation overwrites what was kept"


def test_without_waiting_lines_are_lost(server: Server) -> None:
    """The tests above can fail: this is what a postrotate does that only sends the signal."""
    os.kill(server.arbiter, signal.SIGSTOP)  # As if others had the processor
    Logrotate(server.logs, postrotate=f'kill -USR1 "$(cat {server.directory}/pidfile)"').rotate()
    request = server.get()
    os.kill(server.arbiter, signal.SIGCONT)
    assert len(server.logs.not_exactly_once([request], ["error.log"])) == 1


#: Commands that run another one: as the service's user, and so that nobody else of that user may look into it.
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
AMBIENT = (*AS_NOBODY, "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service")
#: As root in a container by default: it may not look into processes of others, nor take leases of others' files.
CONTAINER = ("setpriv", "--bounding-set", "-sys_ptrace,-lease", "--inh-caps", "-sys_ptrace,-lease")
BY_ROOT = "su root nogroup\n    create 0660 nobody nogroup\n    sharedscripts"


@ROOT_ONLY
@pytest.mark.parametrize(
    "serves, rotates, directives",
    [
        # logrotate rotates a directory of the service as its user, by su, but runs scripts as root.
        (AS_NOBODY, (), "su nobody nogroup"),
        # He may not look into his own processes, if they have capabilities that he has not.
        *((one, AS_NOBODY, "sharedscripts") for one in (AS_NOBODY, AMBIENT)),
        # The workers change their user. The new files are theirs, too, whoever reopens first.
        *(((), one, BY_ROOT) for one in ((), CONTAINER)),
    ],
)
def test_every_line_once_of_another_user(
    serves: Sequence[str], rotates: Sequence[str], directives: str, rotations: int, open_clone: None
) -> None:
    server = gunicorn()
    if not environments.is_open(Path(server.command[0])):
        server.discard()
        pytest.skip("nobody but root may run any Python of this machine")
    server.command[-1:-1] = [] if serves else ["--user", "nobody", "--group", "nogroup"]
    server.command[:0] = serves
    (server.control / "events").touch()
    for path in (server.directory, *server.directory.rglob("*")):
        os.chown(path, NOBODY if serves else 0, NOBODY)
        path.chmod(0o700 if serves else 0o775)
    with server:
        rotate_under_load(server, rotations, rotates, directives=directives)
