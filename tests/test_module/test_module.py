"""The settings module: what the patches promise holds with it on releases that are otherwise as published."""

import re
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Callable

import environments
import pytest
import test_report
from environments import UVICORN, Environment
from properties import run as properties
from properties.environment import SYNC
from properties.server import SERVED, Server
from test_forks.test_install import PIP_TOO, pip
from test_gunicorn import test_gunicorn
from test_interruptions.test_boundaries import sweep

VENDOR = Path(__file__).resolve().parents[2] / "vendor" / "gunicorn-usr1"
MODULE = VENDOR / "gunicorn_usr1.py"

GEVENT = ("gevent", "packaging")  # Which gevent's worker imports

#: The published environments, by their names; on the newest Python here that runs them.
PUBLISHED = {
    "uvicorn 0.13.1": environments.packages("0.13.1", "gunicorn==20.0.4"),
    "uvicorn 0.18.3": environments.packages("0.18.3", "gunicorn==23.0.0"),
    "uvicorn 0.28.1": environments.packages("0.28.1", "gunicorn==23.0.0"),
    "uvicorn 0.54.0": environments.packages("0.54.0", "gunicorn==27.0.1"),
    "uvicorn-worker 0.4.0": ("uvicorn-worker==0.4.0", *environments.packages("0.54.0", "gunicorn==27.0.1")),
    "gunicorn 20.0.4": ("gunicorn==20.0.4", *GEVENT, "setuptools<81"),
    "gunicorn 23.0.0": ("gunicorn==23.0.0", *GEVENT),
    "gunicorn 27.0.1": ("gunicorn==27.0.1", *GEVENT, "pip"),
}

BY_DEFAULT = ("uvicorn 0.13.1", "uvicorn 0.18.3", "uvicorn 0.54.0", "gunicorn 27.0.1")
BLOCKED = "test_blocked_loop and ASGIWorker"
Copy = Callable[[str], Environment]


def published(name: str) -> Environment:
    python = max(version for version in environments.pythons() if version <= (3, 13))
    return environments.cached(python, *PUBLISHED[name])


def put(environment: Environment) -> Environment:
    """The plain file, beside the packages."""
    shutil.copy(MODULE, environment.site_packages)
    return environment


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Makes a copy that has the module, which servers take their settings from."""
    monkeypatch.setenv("USR1_SETTINGS", MODULE.stem)
    return lambda name: put(published(name).copied(tmp_path / "venv"))


@pytest.mark.parametrize("name", environments.parameters(PUBLISHED, BY_DEFAULT))
def test_the_properties_hold(name: str, configured: Copy, pytestconfig: pytest.Config) -> None:
    """By default one that each of these breaks as published, and that of applications that mend it themselves."""
    chosen = f"not ({BLOCKED})" if pytestconfig.getoption("--full") else "test_boot or test_own_fix"
    status, output = properties.run(configured(name).path, "-k", chosen)
    assert status == 0, output


@pytest.mark.full
@pytest.mark.parametrize("module", [MODULE.stem, ""])
def test_a_blocked_loop_of_asgi_loses_lines_as_published(
    module: str, configured: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has the signal, which the hook leaves to it."""
    environment = configured("gunicorn 27.0.1")
    monkeypatch.setenv("USR1_SETTINGS", module)
    status, output = properties.run(environment.path, "-k", BLOCKED, test="test_serving.py")
    assert status == 1 and "lines lost while the application blocked its event loop" in output, output


def test_files_behind_a_queue(configured: Copy) -> None:
    test_gunicorn.test_files_that_no_logger_has(test_gunicorn.Gunicorn("27.0.1", configured("gunicorn 27.0.1")))


def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but the file in the server's folder and one option more."""
    environment = put(test_report.make(tmp_path / "venv"))
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--config python:gunicorn_usr1")
    lines = test_report.run(environment, tmp_path / "report")
    assert lines == {name: Counter(test_report.REQUESTS) for name in lines}


@PIP_TOO
def test_installation(tool: str, tmp_path: Path) -> None:
    """Installed, upgraded and removed."""
    environment = published("gunicorn 27.0.1").copied(tmp_path / "venv")
    source = tmp_path / "a folder" / "gunicorn-usr1"
    shutil.copytree(VENDOR, source)
    # A worker boots with the module as all that there is of a configuration
    boot = [environment.python, "-m", "gunicorn", "--check-config", "--config", "python:gunicorn_usr1", "os:getcwd"]
    environments.output(*boot, status=1)
    pip(tool, environment.path, "install", source)
    module = environment.site_packages / "gunicorn_usr1.py"
    assert module.read_text() == MODULE.read_text()
    environments.output(*boot)

    project = source / "pyproject.toml"
    project.write_text(re.sub(r'^version = "(\d+)"', 'version = "999"', project.read_text(), flags=re.MULTILINE))
    with open(source / "gunicorn_usr1.py", "a") as newer:
        newer.write("newer = True\n")
    pip(tool, environment.path, "install", source)
    assert module.read_text() == (source / "gunicorn_usr1.py").read_text()
    assert [path.name for path in module.parent.glob("gunicorn_usr1-*")] == ["gunicorn_usr1-999.dist-info"]

    pip(tool, environment.path, "uninstall", *(["--yes"] if tool == "pip" else []), "gunicorn-usr1")
    assert list(module.parent.glob("gunicorn_usr1*")) == []


#: Settings of Gunicorn that have to do with logs, signals or workers
OPTIONS = ("--statsd-host=127.0.0.1:{port}", "--reload", f"--log-config={SERVED / 'logging.conf'}", "--preload")

OPENINGS = """
import checkpoints, os, sys

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".log"):
        checkpoints.note("opened", os.getpid(), os.path.basename(arguments[0]))

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


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.partition("=")[0])
def test_nothing_is_lost(option: str, configured: Copy) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        options = [option.format(port=statsd.getsockname()[1])]
        with Server(configured("uvicorn 0.54.0").python, UVICORN, options=options) as server:
            test_gunicorn.rotate_under_load(server, UVICORN, 5)


@pytest.mark.parametrize("part", environments.parameters(range(23), ["3"]))
def test_a_second_rotation_is_never_missed(part: int, configured: Copy) -> None:
    """Nor its signal, at any bytecode boundary of the module while it handles a first one."""
    sweep(configured("gunicorn 27.0.1"), SYNC, ["in_a_log_write", "in_the_handler"], part, 23)


@pytest.mark.parametrize("patch", ["", "uvicorn 0.54.0", "gunicorn 27.0.1"])
def test_nothing_is_done_twice(patch: str, configured: Copy) -> None:
    """A rotation makes a worker open each log file once, also where a patch does the same."""
    environment = configured("uvicorn 0.54.0")
    if patch:
        environments.patched(environment, *patch.split())
    modules = {"sitecustomize": OPENINGS}
    with Server(environment.python, UVICORN, 1, ["--capture-output"], modules=modules) as server:
        [worker] = server.workers()
        before = len(server.events())
        server.rotate(target="worker")
        server.get()
        found = Counter(" ".join(words[1:]) for words in server.events()[before:] if words[0] == "opened")
        # What is printed goes to the error log too, by a descriptor of its own.
        numbers = {"access.log": 1, "error.log": 2, "application.log": 1}
        assert found == {f"{worker} {name}": number for name, number in numbers.items()}


@pytest.mark.parametrize("method", ["reopen_files", "property(lambda self: lambda: reopen_files(self))"])
def test_an_unknown_gunicorn_is_left_as_it_is(method: str, configured: Copy) -> None:
    modules = {"sitecustomize": UNKNOWN.format(method)}
    with Server(configured("uvicorn 0.54.0").python, UVICORN, modules=modules) as server:
        said = [line for line in server.logs.lines("error.log") if "gunicorn_usr1" in line]
        assert len(said) == 1 and "Gunicorn 27.0.1" in said[0]
        reopened = server.times("reopened")
        server.rotate(target="worker")
        assert server.times("reopened") == reopened + 1
