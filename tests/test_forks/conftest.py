import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import environments
import psutil
import pytest
from environments import NEWEST
from properties import wait
from usr1 import patches, wheel
from usr1.forks import fork
from usr1.upkeep import releases

ROOT = Path(__file__).resolve().parents[2]
CATALOGUES = {distribution: patches.catalogue(distribution) for distribution in patches.DISTRIBUTIONS}
EVERY = [(name, release) for name, catalogue in CATALOGUES.items() for one in catalogue for release in one.releases]

#: The oldest and the newest of each distribution, and those that were withdrawn.
BY_DEFAULT = [(name, release) for name, withdrawn in fork.WITHDRAWN.items() for release in withdrawn]
for name, catalogue in CATALOGUES.items():
    BY_DEFAULT += [(name, catalogue[n].releases[-1]) for n in (0, -1)]


@pytest.fixture(autouse=True)
def nothing_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests does not matter, and where that is."""
    monkeypatch.chdir(tmp_path)
    for name in ("SOURCE_DATE_EPOCH", *map(fork.variable, patches.DISTRIBUTIONS)):
        monkeypatch.delenv(name, raising=False)
    # No bytecode, which takes a good part of pip's time: of this setting it takes the opposite
    monkeypatch.setenv("PIP_NO_COMPILE", "0")


def pristine_files(distribution: str = "uvicorn", release: str = NEWEST) -> wheel.Files:
    return wheel.installed(distribution, [str(releases.unpacked(distribution, release))])


def version(name: str, release: str) -> str:
    return f"{release}+usr1.{fork.find(name, release).revision}"


def said(message: str) -> List[str]:
    """A refusal: what, expected, found, do."""
    what, *lines = message.splitlines()
    assert [line[:12].strip() for line in lines] == ["expected:", "found:", "do:"]
    return [what, *(line[12:] for line in lines)]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A directory with a fork for each combination of file and hook, or of each release, built in this process."""
    directory = tmp_path_factory.mktemp("wheels")
    of_each = [(name, one.releases[-1]) for name, catalogue in CATALOGUES.items() for one in catalogue]
    for case in EVERY if pytestconfig.getoption("--full") else {*of_each, *BY_DEFAULT}:
        wheel.pack(fork.fork(case[0], pristine_files(*case)), directory)
    return directory


@pytest.fixture(scope="session")
def index(wheels: Path) -> Iterator[str]:
    """The address of a private index with the forks and nothing else: a real pypiserver."""
    options = ["--interface", "127.0.0.1", "--port", "0", "--disable-fallback", str(wheels)]
    with subprocess.Popen([sys.executable, "-m", "pypiserver", "run", *options]) as server:
        try:
            sockets = psutil.Process(server.pid).net_connections
            [socket] = wait.until(sockets, lambda: f"pypiserver does not listen: {server.poll()}")
            yield f"http://127.0.0.1:{socket.laddr.port}/simple/"
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of what the forks are made from, as it is now, committed or not."""
    # One for each process that runs tests: of a directory from which several uvs build different releases at the same
    # time, each takes the dependencies that any of them has found.
    directory = tmp_path_factory.mktemp("clone") / "uvicorn-usr1"
    for part in ("vendor", "patches", "scripts"):
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    environments.commit_all(directory)
    return directory
