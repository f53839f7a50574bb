"""Gunicorn with its own patch alone, under each worker class; and without, where the same must fail."""

import tempfile
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import environments
import pytest
from environments import Environment
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from properties.server import Server
from usr1 import patches

#: The newest release of each patch, newest first.
RELEASES = [patch.releases[-1] for patch in patches.catalogue("gunicorn")]
RELEASES.sort(key=Version, reverse=True)
NEWEST = RELEASES[0]

#: The worker classes, and the releases that each is tested with.
WORKER_CLASSES = {
    "sync": SpecifierSet(),
    "gthread": SpecifierSet(),
    "asgi": SpecifierSet(">=24"),
    "gevent": SpecifierSet(),
    "eventlet": SpecifierSet("<26"),
    "uvicorn.workers.UvicornWorker": SpecifierSet(),
    "tornado": SpecifierSet(">=20.1"),  # Before, none that runs with Tornado 6
    "aiohttp.GunicornWebWorker": SpecifierSet(),
}

#: How a worker ends that gets SIGTERM; uvicorn raises the signal again when all is done.
ENDED = {"exited with 0", "killed by SIGTERM"}

#: An application of a few lines, which logs through the root logger.
LOGGING = 'logging.basicConfig(filename=os.environ["APPLICATION_LOG"], level=logging.INFO)'
WSGI = """
import logging, os, time
import checkpoints
{logging}

def app(environ, start_response):
    kind, request = environ["PATH_INFO"].split("/")[1:3]
    logging.info(request)
    logging.getLogger("gunicorn.error").info(request)
    checkpoints.pause(request)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

checkpoints.pause("load")
checkpoints.note("started", os.getpid())
"""
ASGI = """
import logging, os
import checkpoints
{logging}
checkpoints.pause("load")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        checkpoints.note("started", os.getpid())
        await receive()
        return await send({{"type": "lifespan.shutdown.complete"}})
    kind, request = scope["path"].split("/")[1:3]
    logging.info(request)
    logging.getLogger("gunicorn.error").info(request)
    if kind == "block":
        checkpoints.pause(request)
    await checkpoints.pause_async(request)
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": b"ok"}})
"""
AIOHTTP = """
import logging, os
import checkpoints
from aiohttp import web
{logging}
checkpoints.pause("load")

async def answer(request):
    logging.info(request.path)
    logging.getLogger("gunicorn.error").info(request.path)
    if request.match_info["kind"] == "block":
        checkpoints.pause(request.match_info["request"])
    await checkpoints.pause_async(request.match_info["request"])
    return web.Response(text="ok")

app = web.Application()
app.add_routes([web.get("/{{kind}}/{{request}}", answer)])
checkpoints.note("started", os.getpid())
"""
AIOHTTPS = "aiohttp.GunicornWebWorker"
APPLICATIONS = {"asgi": ASGI, "uvicorn.workers.UvicornWorker": ASGI, AIOHTTPS: AIOHTTP}


def classes(*by_default: str, without: Sequence[str] = ()) -> pytest.MarkDecorator:
    """The worker classes as parameters of a test: these by default, all but some with --full."""
    marks = {name: [] if name in by_default else [pytest.mark.full] for name in WORKER_CLASSES if name not in without}
    return pytest.mark.parametrize(
        "worker_class", [pytest.param(name, marks=marks[name], id=name.split(".")[0]) for name in marks]
    )


class Gunicorn:
    """An environment with one release of Gunicorn, and servers of it."""

    def __init__(self, release: str, environment: Environment) -> None:
        self.release = release
        self.environment = environment

    def serve(
        self,
        worker_class: str = "sync",
        *options: str,
        workers: int = 1,
        logging: str = LOGGING,
        modules: Mapping[str, str] = {},
        variables: Mapping[str, str] = {},
    ) -> Server:
        if self.release not in WORKER_CLASSES[worker_class]:
            pytest.skip(f"Gunicorn {self.release} has no worker class {worker_class}")
        if worker_class == "eventlet" and is_old(self.release) and python(self.release) >= (3, 10):
            pytest.skip("no Python before 3.10 that anybody may run, which eventlet before 0.30.3 takes")
        modules = {"application": APPLICATIONS.get(worker_class, WSGI).format(logging=logging), **modules}
        if worker_class == "gthread":
            options = (*options, "--threads", "8")
        return Server(self.environment.python, worker_class, workers, options, variables, modules)


def is_old(release: str) -> bool:
    return Version(release) < Version("21")


def uvicorn(release: str) -> str:
    """The release of uvicorn beside a release of Gunicorn."""
    return "0.18.3" if is_old(release) else environments.COMBINATIONS[-1]


def packages(release: str) -> Sequence[str]:
    # Before 21 Gunicorn imports what eventlet has no more; from 26 on it does without it.
    eventlet = "eventlet<0.30.3" if is_old(release) else "eventlet"
    others = ["gevent", "packaging", "tornado", "aiohttp", *[eventlet] * (release in WORKER_CLASSES["eventlet"])]
    return [*environments.packages(uvicorn(release), f"gunicorn=={release}"), *others]


def python(release: str) -> environments.Version:
    """Old releases run on old Pythons. Workers become another user, who may run few of root's."""
    found = environments.for_anybody(version for version in environments.pythons() if version >= (3, 8))
    return found[0] if is_old(release) else found[-1]


def pristine_environment(release: str) -> Environment:
    return environments.cached(python(release), *packages(release))


releases = pytest.fixture(
    scope="session",
    params=[pytest.param(one, marks=[] if one == NEWEST else [pytest.mark.full]) for one in RELEASES],
)


@releases
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """Patched; a user whom a worker becomes may look into it."""
    release: str = request.param
    with tempfile.TemporaryDirectory(prefix="usr1-") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "environment"
        yield Gunicorn(release, environments.patched_copy(pristine_environment(release), path, "gunicorn", release))


@pytest.fixture(
    scope="session",
    params=[NEWEST, *(pytest.param(one, marks=pytest.mark.full) for one in ("23.0.0", RELEASES[-1]))],
)
def pristine(request: pytest.FixtureRequest) -> Gunicorn:
    return Gunicorn(request.param, pristine_environment(request.param))
