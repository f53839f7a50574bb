"""What the environment under test has."""

import functools
import json
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Dict, List, NamedTuple

from usr1 import patches

_PROBE = """
import asyncio, importlib, importlib.util, json, platform
import gunicorn

def has(module):
    return importlib.util.find_spec(module) and importlib.import_module(module)

def importable(module):
    try:
        return has(module)
    except Exception:  # gevent, say, is not installed, or too old
        return False

uvicorn = has("uvicorn")

def usable(worker):
    if not all(name in ("auto", "asyncio", "h11") or has(name) for name in worker.CONFIG_KWARGS.values()):
        return False
    if "get_event_loop" not in worker.run.__code__.co_names:
        return True
    # Workers before 0.15.0 expect a current event loop, which not every policy of uvloop makes.
    try:
        uvicorn.Config(None, **worker.CONFIG_KWARGS).setup_event_loop()
        return asyncio.get_event_loop()
    except RuntimeError:
        return False
    finally:
        asyncio.set_event_loop_policy(None)

found = {"uvicorn.workers": uvicorn and has("uvicorn.workers"), "uvicorn_worker": has("uvicorn_worker")}
classes = [
    module + "." + name
    for module in sorted(found) if found[module]
    for name in ("UvicornWorker", "UvicornH11Worker") if usable(getattr(found[module], name))
]
versions = {"uvicorn": uvicorn.__version__} if uvicorn else {}
versions.update({"gunicorn": gunicorn.__version__, "Python": platform.python_version()})
own = [name for name in OWN if importable(name.rpartition(".")[0])]
print(json.dumps({
    "versions": versions,
    "worker_classes": classes,
    "own_classes": own,
    "is_pypy": platform.python_implementation() == "PyPy",
    "has_serve": any(hasattr(found[module] and found[module].UvicornWorker, "_serve") for module in found),
}))
"""

#: Gunicorn's own worker classes, but for tornado's, whose access log is tornado's own.
OWN = (
    "gunicorn.workers.sync.SyncWorker",
    "gunicorn.workers.gthread.ThreadWorker",
    "gunicorn.workers.gasgi.ASGIWorker",
    "gunicorn.workers.ggevent.GeventWorker",
)
SYNC, GTHREAD, ASGI, GEVENT = OWN


def is_own(worker_class: str) -> bool:
    """Whether it is Gunicorn's: the short names of those have no dot."""
    return worker_class in OWN or "." not in worker_class


def is_wsgi(worker_class: str) -> bool:
    return is_own(worker_class) and worker_class not in (ASGI, "asgi")


class Environment(NamedTuple):
    path: Path
    versions: Dict[str, str]
    worker_classes: List[str]
    own_classes: List[str]  # Gunicorn's, if they are to be tested
    is_pypy: bool
    has_serve: bool

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def modules(self) -> List[List[str]]:
        """uvicorn's worker classes, by the modules that they are in."""
        return [list(group) for _, group in groupby(self.worker_classes, lambda name: name.rpartition(".")[0])]

    def is_published(self, worker_class: str) -> bool:
        """Whether it is uvicorn's as it was published, under a patched Gunicorn."""
        distribution = "uvicorn" if worker_class.startswith("uvicorn.") else "uvicorn-worker"
        return bool(self.own_classes) and not is_own(worker_class) and not is_patched(self.path, distribution)


class Unusable(Exception):
    """The environment cannot serve with a uvicorn worker class; the message says why."""


@functools.lru_cache(maxsize=None)
def inspect(path: Path) -> Environment:
    """Look into an environment; raises Unusable."""
    path = path.absolute()
    command = [str(path / "bin" / "python"), "-I", "-B", "-W", "ignore", "-c", f"OWN = {OWN}\n{_PROBE}"]
    try:
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace")
    except OSError as error:
        raise Unusable(f"{path} is no virtual environment: {error}") from error
    if answer.returncode != 0:
        raise Unusable(f"{path} cannot import gunicorn, or uvicorn's workers: {answer.stderr.strip().splitlines()[-1]}")
    environment = Environment(path, **json.loads(answer.stdout))
    if "uvicorn" not in environment.versions:
        return environment
    if not environment.worker_classes:
        raise Unusable(f"{path} has no worker class whose event loop and HTTP parser are installed")
    # Where uvicorn serves, nobody asks for Gunicorn's own classes, unless they are patched as well.
    return environment if is_patched(path, "gunicorn") else environment._replace(own_classes=[])


def is_patched(path: Path, distribution: str) -> bool:
    """Whether all that the patch of a distribution changes is as patched."""
    info = next(path.glob(f"lib/py*3.*/site-packages/{distribution.replace('-', '_')}-*.dist-info"), None)
    patch = info and patches.find(distribution, release(info))
    if not info or not patch:
        return False
    return all(patches.sha256((info.parent / name).read_bytes()) == after for name, after in patch.patched.items())


def release(info: Path) -> str:
    """The release that a dist-info directory is of; a fork is of the one that it was made from."""
    return info.stem.partition("-")[2].partition("+")[0]
