"""With the settings and extension points of Gunicorn that have to do with logs, signals or workers."""

import socket
from collections import Counter
from typing import Callable, Dict, Sequence

import environments
import pytest
from environments import Environment
from properties.environment import SYNC
from properties.server import SERVED
from test_gunicorn.test_rotation import rotate_under_load
from test_interruptions.test_sweeps import swept

from test_module.conftest import MODULE, SETTINGS, UVICORN, published, serve

OPTIONS: Dict[str, Sequence[str]] = {
    "statsd": ["--statsd-host", "127.0.0.1:{port}"],
    "reload": ["--reload"],
    "logconfig": ["--log-config", str(SERVED / "logging.conf")],
    "preload": ["--preload"],
}

#: The published behaviours, and Gunicorn's own worker classes
LOADED = [
    *((name, UVICORN) for name in ("uvicorn 0.13.1", "uvicorn 0.18.3", "uvicorn 0.54.0")),
    *(("gunicorn 27.0.1", name) for name in ("sync", "gthread", "gevent")),
]

#: Notes each log file that a process opens, by a file of its own.
OPENINGS = """
import os, sys

def note(event, arguments, control=os.environ["CONTROL"]):
    if event == "open" and str(arguments[0]).endswith(".log"):
        fd = os.open(control + "/opened", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, b"%d %s\\n" % (os.getpid(), os.path.basename(arguments[0]).encode()))
        os.close(fd)

sys.addaudithook(note)
"""

#: What another Gunicorn, or somebody's patch of it, may have.
UNKNOWN = """
from gunicorn import glogging

def reopen_files(self, published=glogging.Logger.reopen_files):
    __import__("checkpoints").note("reopened")
    published(self)

glogging.Logger.reopen_files = {}
"""


@pytest.mark.parametrize("setting", OPTIONS)
def test_nothing_is_lost(setting: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        options = [option.format(port=statsd.getsockname()[1]) for option in OPTIONS[setting]]
        with serve(published("uvicorn 0.54.0"), UVICORN, *options, workers=2) as server:
            rotate_under_load(server, UVICORN, rotations=5)


@pytest.mark.full
@pytest.mark.parametrize("name, worker_class", LOADED)
def test_load(name: str, worker_class: str) -> None:
    with serve(published(name), worker_class, workers=2) as server:
        rotate_under_load(server, worker_class, rotations=200)


@pytest.mark.parametrize("part", [3, *(pytest.param(part, marks=pytest.mark.full) for part in range(23) if part != 3)])
def test_a_second_rotation_is_never_missed(part: int) -> None:
    """Nor its signal, at any bytecode boundary of the module while it handles a first one."""
    modules = {"gunicorn_usr1": MODULE.read_text()}
    target, sweeps = published("gunicorn 27.0.1"), ["in_a_log_write", "in_the_handler"]
    assert swept(target, SYNC, sweeps, part, 23, variables=SETTINGS, modules=modules) == []


@pytest.mark.parametrize("patched", ["nothing", "uvicorn", "gunicorn"])
def test_nothing_is_done_twice(patched: str, copy: Callable[[str], Environment]) -> None:
    """A rotation makes a worker open each log file once, also where a patch does the same."""
    environment = copy("uvicorn 0.54.0")
    if patched != "nothing":
        environments.patched(environment, patched, {"uvicorn": "0.54.0", "gunicorn": "27.0.1"}[patched])
    with serve(environment, UVICORN, "--capture-output", modules={"sitecustomize": OPENINGS}) as server:
        opened, [worker] = server.control / "opened", server.workers()
        opened.unlink()
        server.logs.rotate()
        server.signal("worker")
        server.wait_until_reopened([worker])
        server.get()
        found = Counter(opened.read_text().splitlines())
        # What is printed goes to the error log too, by a descriptor of its own.
        numbers = {"access.log": 1, "error.log": 2, "application.log": 1}
        assert found == {f"{worker} {name}": number for name, number in numbers.items()}


@pytest.mark.parametrize("method", ["reopen_files", "property(lambda self: lambda: reopen_files(self))"])
def test_an_unknown_gunicorn_is_left_as_it_is(method: str) -> None:
    modules = {"sitecustomize": UNKNOWN.format(method)}
    with serve(published("uvicorn 0.54.0"), workers=2, modules=modules) as server:
        said = [line for line in server.logs.lines("error.log") if "gunicorn_usr1" in line]
        assert len(said) == 1 and "Gunicorn 27.0.1" in said[0]
        reopened = server.times("reopened")
        server.logs.rotate()
        server.signal("worker")
        server.wait_until_reopened(server.pids("worker"))
        assert server.times("reopened") == reopened + 1
