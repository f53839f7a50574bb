"""What the target environment has."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Dict, List, NamedTuple

_PROBE = """
import importlib, json, platform

def has(module):
    try:
        return importlib.import_module(module)
    except ImportError:
        return None

def usable(worker):
    return all(name in ("auto", "asyncio", "h11") or has(name) for name in worker.CONFIG_KWARGS.values())

found = {"uvicorn.workers": has("uvicorn.workers"), "uvicorn_worker": has("uvicorn_worker")}
classes = [
    module + "." + name
    for module in sorted(found) if found[module]
    for name in ("UvicornWorker", "UvicornH11Worker") if usable(getattr(found[module], name))
]
import uvicorn, gunicorn
print(json.dumps({
    "versions": {"uvicorn": uvicorn.__version__, "gunicorn": gunicorn.__version__, "Python": platform.python_version()},
    "worker_classes": classes,
    "has_serve": any(hasattr(found[module] and found[module].UvicornWorker, "_serve") for module in found),
}))
"""


class Target(NamedTuple):
    path: Path
    versions: Dict[str, str]
    worker_classes: List[str]
    has_serve: bool

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


@functools.lru_cache(maxsize=None)
def inspect(path: Path) -> Target:
    """Look into an environment; raises CalledProcessError if it has no uvicorn or no gunicorn."""
    path = path.absolute()
    command = [str(path / "bin" / "python"), "-I", "-B", "-W", "ignore", "-c", _PROBE]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return Target(path, **answer)
