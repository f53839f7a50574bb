import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import environments
import pytest
from usr1 import patches, wheel
from usr1.forks import fork
from usr1.upkeep import releases

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("directory", "git", "index")


def every(full: bool) -> List[Tuple[str, str]]:
    """A release for each combination of file and hook, the newest, or each release there is."""
    return [
        (distribution, release)
        for distribution in patches.DISTRIBUTIONS
        for patch in patches.catalogue(distribution)
        for release in (patch.releases if full else patch.releases[-1:])
    ]


#: By default: the oldest, one in the middle and the newest of each distribution, and those that were withdrawn.
BY_DEFAULT = [
    (distribution, catalogue[n].releases[-1])
    for distribution, catalogue in ((name, list(patches.catalogue(name))) for name in patches.DISTRIBUTIONS)
    for n in sorted({0, len(catalogue) // 2, len(catalogue) - 1})
] + [(distribution, release) for distribution, withdrawn in fork.WITHDRAWN.items() for release in withdrawn]


def cases() -> Iterator[Any]:
    for case in every(full=True):
        yield pytest.param(*case, marks=[] if case in BY_DEFAULT else [pytest.mark.full])


def installations() -> Iterator[Any]:
    """Each of these by uv and by pip from everywhere; by default the newest by pip, which takes ten times as long."""
    newest = [(distribution, patches.releases(distribution)[-1]) for distribution in patches.DISTRIBUTIONS]
    for case in every(full=True):
        for source in SOURCES:
            for tool, chosen in (("uv", BY_DEFAULT), ("pip", newest if source == "directory" else [])):
                yield pytest.param(tool, source, *case, marks=[] if case in chosen else [pytest.mark.full])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames and "tool" in metafunc.fixturenames:
        metafunc.parametrize("tool,source,distribution,release", installations())
    elif "release" in metafunc.fixturenames:
        metafunc.parametrize("distribution,release", cases())


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests does not matter."""
    for name in ("SOURCE_DATE_EPOCH", *map(fork.variable, patches.DISTRIBUTIONS)):
        monkeypatch.delenv(name, raising=False)
    # No bytecode, which takes a good part of pip's time: of this setting it takes the opposite
    monkeypatch.setenv("PIP_NO_COMPILE", "0")


def published(distribution: str, release: str) -> Path:
    """A directory with one published wheel in it, downloaded once: uv installs wheels but does not keep them."""
    path = ROOT / ".cache" / "wheels" / f"{distribution}-{release}"
    if not path.exists():
        # Later ones refuse the metadata of 0.13.0 to 0.13.2 and 0.14.0, which is not valid
        pip = environments.cached(sys.version_info[:2], "pip==24.0").python
        new = path.with_name(f"{path.name}.{os.getpid()}")
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.99", "--dest", str(new)]
        command = [str(pip), "-m", "pip", "download", "--quiet", *options, f"{distribution}==={release}"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        try:
            new.rename(path)
        except OSError:  # Another test was faster
            shutil.rmtree(new)
    return path


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A directory with a fork for each combination, built in this process."""
    directory = tmp_path_factory.mktemp("wheels")
    for distribution, release in {*every(pytestconfig.getoption("--full")), *BY_DEFAULT}:
        files = wheel.installed(distribution, [str(releases.unpacked(distribution, release))])
        wheel.pack(fork.fork(distribution, files), directory)
    return directory


@pytest.fixture(scope="session")
def index(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a private index with the forks and nothing else: a real pypiserver."""
    said = tmp_path_factory.mktemp("index") / "stderr"
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["run", "--interface", "127.0.0.1", "--port", str(port), "--disable-fallback", str(wheels)]
        command = [sys.executable, "-m", "pypiserver", *command]
        with said.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as server:
            try:
                if answers(port, server):
                    yield f"http://127.0.0.1:{port}/simple/"
                    return
            finally:
                server.terminate()
    raise RuntimeError(f"pypiserver does not start: {said.read_text()}")


def answers(port: int, server: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A git repository of what the forks are made from, as it is now, committed or not.

    One for each process that runs tests: of a directory from which several uvs build different
    releases at the same time, each takes the dependencies that any of them has found.
    """
    directory = tmp_path_factory.mktemp("clone") / "uvicorn-usr1"
    for part in ("vendor", "patches", "scripts"):
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(directory), "-c", "user.name=tests", "-c", "user.email=tests"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "as it is now"]):
        subprocess.run([*git, *command], check=True)
    return directory


@pytest.fixture(scope="session")
def repository(clone: Path) -> str:
    """Its URL."""
    return f"git+file://localhost{clone}"  # pip before 24.1 asks for a host
