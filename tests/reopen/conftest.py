import shutil
from typing import Iterator

import environments
import pytest
from environments import Environment
from properties.server import Server

#: The application of tests/properties/served, for a worker class that serves WSGI.
WSGI = """
import logging, os
import checkpoints

log = logging.getLogger("application")
log.setLevel(logging.INFO)
log.addHandler(logging.FileHandler(os.environ["APPLICATION_LOG"]))
checkpoints.mark("started")

def app(environ, start_response):
    request = environ["PATH_INFO"].split("/")[2]
    log.info(request)
    logging.getLogger("gunicorn.error").info(request)
    body = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

#: For each worker class gunicorn's options and the application, if it is not the usual one.
WORKER_CLASSES = {
    "uvicorn.workers.UvicornWorker": ((), {}),
    "asgi": ((), {}),
    "gthread": (("--threads", "8"), {"application": WSGI}),
}


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    missing = [name for name in ("logrotate", "nginx", "dash") if not shutil.which(name)]
    assert not missing, f"not on the PATH: {missing}; on Debian: apt install logrotate nginx-light dash"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The newest patched uvicorn with the newest gunicorn."""
    path = tmp_path_factory.mktemp("reopen") / "environment"
    made = environments.make(path, max(environments.pythons()), *environments.packages("0.54.0", "gunicorn==27.0.1"))
    environments.patched(made, "uvicorn", "0.54.0")
    return made


@pytest.fixture
def server(environment: Environment) -> Iterator[Server]:
    with gunicorn(environment) as server:
        yield server


def gunicorn(environment: Environment, worker_class: str = "uvicorn.workers.UvicornWorker", *more: str) -> Server:
    options, modules = WORKER_CLASSES[worker_class]
    return Server(environment.python, worker_class, options=("--pid", "pidfile", *options, *more), modules=modules)
