"""Gunicorn with its own patch alone, under each worker class; and without, where the same must fail."""

from typing import Iterator, Mapping, NamedTuple, Sequence

import environments
import pytest
from environments import UVICORN, Environment
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from properties import wait
from properties.server import Server
from usr1 import patches

RELEASES = sorted((patch.releases[-1] for patch in patches.catalogue("gunicorn")), key=Version, reverse=True)
NEWEST = environments.GUNICORN

#: The worker classes, and the releases that each is tested with.
WORKER_CLASSES = {
    "sync": SpecifierSet(),
    "gthread": SpecifierSet(),
    "asgi": SpecifierSet(">=24"),
    "gevent": SpecifierSet(),
    "eventlet": SpecifierSet("<26"),
    UVICORN: SpecifierSet(),
    "tornado": SpecifierSet(">=20.1"),  # Before, none that runs with Tornado 6
    "aiohttp.GunicornWebWorker": SpecifierSet(),
}

AIOHTTPS = "aiohttp.GunicornWebWorker"


def classes(*by_default: str, without: Sequence[str] = ()) -> pytest.MarkDecorator:
    names = [name for name in WORKER_CLASSES if name not in without]
    return pytest.mark.parametrize("worker_class", environments.parameters(names, by_default))


class Gunicorn(NamedTuple):
    release: str
    environment: Environment

    def serve(
        self,
        worker_class: str = "sync",
        *options: str,
        workers: int = 1,
        modules: Mapping[str, str] = {},
        variables: Mapping[str, str] = {},
    ) -> Server:
        if self.release not in WORKER_CLASSES[worker_class]:
            pytest.skip(f"Gunicorn {self.release} has no worker class {worker_class}")
        if worker_class == "eventlet" and is_old(self.release) and python(self.release) >= (3, 10):
            pytest.skip("no Python before 3.10 that anybody may run, which eventlet before 0.30.3 takes")
        variables = {"LOGGED_BY": "root", **variables}  # Which only Gunicorn's patch looks after
        return Server(self.environment.python, worker_class, workers, options, variables, modules)


def is_old(release: str) -> bool:
    return Version(release) < Version("21")


def uvicorn(release: str) -> str:
    return "0.18.3" if is_old(release) else environments.NEWEST


def python(release: str) -> environments.Version:
    """Old releases run on old Pythons. Workers become another user, who may run few of root's."""
    found = environments.for_anybody(version for version in environments.pythons() if version >= (3, 8))
    return found[0] if is_old(release) else found[-1]


def pristine_environment(release: str) -> Environment:
    # Before 21 Gunicorn imports what eventlet has no more; from 26 on it does without it.
    eventlet = "eventlet<0.30.3" if is_old(release) else "eventlet"
    others = ["gevent", "packaging", "tornado", "aiohttp", *[eventlet] * (release in WORKER_CLASSES["eventlet"])]
    packages = environments.packages(uvicorn(release), f"gunicorn=={release}")
    return environments.cached(python(release), *packages, *others)


@pytest.fixture(scope="session", params=environments.parameters(RELEASES, [NEWEST]))
def gunicorn(request: pytest.FixtureRequest) -> Gunicorn:
    patched = environments.patched_until_exit(pristine_environment(request.param), f"gunicorn {request.param}")
    return Gunicorn(request.param, patched)


@pytest.fixture(scope="session", params=environments.parameters([NEWEST, "23.0.0", RELEASES[-1]], [NEWEST]))
def pristine(request: pytest.FixtureRequest) -> Gunicorn:
    return Gunicorn(request.param, pristine_environment(request.param))


@pytest.fixture
def server(gunicorn: Gunicorn, worker_class: str) -> Iterator[Server]:
    with gunicorn.serve(worker_class) as server:
        yield server


@pytest.fixture
def pristine_server(pristine: Gunicorn, worker_class: str) -> Iterator[Server]:
    with pristine.serve(worker_class) as server:
        server.reopening = wait.Patience(0.5)
        yield server
