"""What the environment under test has."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Dict, List, NamedTuple

_PROBE = """
import asyncio, importlib, importlib.util, json, platform
import gunicorn, uvicorn

def has(module):
    return importlib.util.find_spec(module) and importlib.import_module(module)

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

found = {"uvicorn.workers": has("uvicorn.workers"), "uvicorn_worker": has("uvicorn_worker")}
classes = [
    module + "." + name
    for module in sorted(found) if found[module]
    for name in ("UvicornWorker", "UvicornH11Worker") if usable(getattr(found[module], name))
]
print(json.dumps({
    "versions": {"uvicorn": uvicorn.__version__, "gunicorn": gunicorn.__version__, "Python": platform.python_version()},
    "worker_classes": classes,
    "has_serve": any(hasattr(found[module] and found[module].UvicornWorker, "_serve") for module in found),
}))
"""


class Environment(NamedTuple):
    path: Path
    versions: Dict[str, str]
    worker_classes: List[str]
    has_serve: bool

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


class Unusable(Exception):
    """The environment cannot serve with a uvicorn worker class; the message says why."""


@functools.lru_cache(maxsize=None)
def inspect(path: Path) -> Environment:
    """Look into an environment; raises Unusable."""
    path = path.absolute()
    command = [str(path / "bin" / "python"), "-I", "-B", "-W", "ignore", "-c", _PROBE]
    try:
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace")
    except OSError as error:
        raise Unusable(f"{path} is no virtual environment: {error}") from error
    if answer.returncode != 0:
        raise Unusable(f"{path} cannot import gunicorn and uvicorn's workers: {answer.stderr.strip().splitlines()[-1]}")
    environment = Environment(path, **json.loads(answer.stdout))
    if not environment.worker_classes:
        raise Unusable(f"{path} has no worker class whose event loop and HTTP parser are installed")
    return environment
