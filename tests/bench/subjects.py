"""What is compared: servers as pip and apt install them, and patched."""

import contextlib
import hashlib
import os
import shutil
import signal
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

import environments
import psutil
from environments import GUNICORN, NEWEST, Environment
from properties.logs import NAMES
from properties.server import Server, send
from test_reopen.nginx import Nginx
from usr1 import patches
from usr1.patches import Patch

CACHE = environments.CACHE.parent / "bench"

UVICORN = "uvicorn.workers.UvicornWorker"


class Subject(NamedTuple):
    name: str
    worker_class: str
    packages: Tuple[str, ...]
    patches: Tuple[str, ...] = ()  # DISTRIBUTION RELEASE
    old: bool = False  # Runs on an old Python only

    def environment(self) -> Environment:
        found = environments.pythons()
        python = min(version for version in found if version >= (3, 8)) if self.old else max(found)
        pristine = environments.cached(python, *self.packages)
        if not self.patches:
            return pristine
        texts = [_patch(one).text for one in self.patches]
        path = CACHE / hashlib.sha256("".join([pristine.path.name, *texts]).encode()).hexdigest()
        if not path.exists():
            new = path.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(pristine.path, new, symlinks=True)
            for one in self.patches:
                environments.patched(Environment(new, self.packages), *one.split())
            new.rename(path)
        return Environment(path, self.packages)

    def server(self, *options: str, workers: int = 2, variables: Mapping[str, str] = {}) -> "Served":
        if self.worker_class == "nginx":
            return Master(workers)
        return Server(self.environment().python, self.worker_class, workers, options, variables)

    @property
    def keeps_alive(self) -> bool:
        return self.worker_class != "sync"

    @property
    def logs(self) -> Sequence[str]:
        return ("access.log",) if self.worker_class == "nginx" else NAMES


class Master(Nginx):
    """nginx, as far as it is like Gunicorn."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        text = self.configuration.read_text().replace("worker_processes 2", f"worker_processes {workers}")
        self.configuration.write_text(text)
        self.seen: Dict[int, psutil.Process] = {}

    def __enter__(self) -> "Master":
        super().__enter__()
        return self

    @property
    def arbiter(self) -> int:
        return self.process.pid

    def workers(self) -> List[int]:
        return [child.pid for child in psutil.Process(self.arbiter).children()]

    def pids(self, target: str) -> List[int]:
        return {"arbiter": [self.arbiter], "all": [self.arbiter, *self.workers()]}[target]

    def signal(self, target: str, number: int = signal.SIGUSR1, times: int = 1) -> None:
        for _ in range(times):
            send(self.pids(target), number)

    def exits(self) -> Dict[int, int]:
        return {}

    def stderr(self) -> str:
        return ""

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.arbiter, signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.directory)


Served = Union[Server, Master]


def _patch(one: str) -> Patch:
    found = patches.find(*one.split())
    assert found is not None, one
    return found


def _uvicorn(name: str, *patched: str) -> Subject:
    return Subject(name, UVICORN, environments.packages(NEWEST, f"gunicorn=={GUNICORN}"), patched)


def _old(release: str, gunicorn: str, *patched: str) -> Subject:
    name = f"uvicorn {release}" + (", both patched" if patched else "")
    return Subject(name, UVICORN, environments.packages(release, f"gunicorn=={gunicorn}"), patched, old=True)


def _uvicorn_worker(*patched: str) -> Subject:
    name = "uvicorn-worker 0.4.0" + (", both patched" if patched else "")
    packages = ("uvicorn-worker==0.4.0", *environments.packages(NEWEST, f"gunicorn=={GUNICORN}"))
    return Subject(name, "uvicorn_worker.UvicornWorker", packages, patched)


def _gunicorn(worker_class: str, *patched: str, also: Tuple[str, ...] = ()) -> Subject:
    name = f"Gunicorn {worker_class.split('.')[0]}" + (", patched" if patched else "")
    return Subject(name, worker_class, (f"gunicorn=={GUNICORN}", "packaging", *also), patched)


OURS = f"uvicorn {NEWEST}"
THEIRS = f"gunicorn {GUNICORN}"
AIOHTTP = ("aiohttp==3.13.2",)

PRISTINE = _uvicorn(f"uvicorn {NEWEST}")
PATCHED = _uvicorn(f"uvicorn {NEWEST}, both patched", OURS, THEIRS)
ALONE = _uvicorn(f"uvicorn {NEWEST}, patched", OURS)
GTHREAD = _gunicorn("gthread")
GTHREAD_PATCHED = _gunicorn("gthread", THEIRS)
NGINX = Subject("nginx", "nginx", ())

SUBJECTS = (
    PRISTINE,
    PATCHED,
    ALONE,
    _uvicorn(f"uvicorn {NEWEST}, Gunicorn patched", THEIRS),
    _old("0.13.1", "20.0.4"),
    _old("0.13.1", "20.0.4", "uvicorn 0.13.1", "gunicorn 20.0.4"),
    _old("0.18.3", "20.1.0"),
    _old("0.18.3", "20.1.0", "uvicorn 0.18.3", "gunicorn 20.1.0"),
    _uvicorn_worker(),
    _uvicorn_worker("uvicorn-worker 0.4.0", THEIRS),
    _gunicorn("sync"),
    _gunicorn("sync", THEIRS),
    GTHREAD,
    GTHREAD_PATCHED,
    _gunicorn("asgi"),
    _gunicorn("asgi", THEIRS),
    _gunicorn("aiohttp.GunicornWebWorker", also=AIOHTTP),
    _gunicorn("aiohttp.GunicornWebWorker", THEIRS, also=AIOHTTP),
    NGINX,
)

#: For what takes long: real logrotate, which compresses.
MAIN = (
    PRISTINE.name,
    PATCHED.name,
    ALONE.name,
    "uvicorn 0.13.1",
    "uvicorn 0.13.1, both patched",
    "uvicorn 0.18.3",
    "uvicorn 0.18.3, both patched",
    GTHREAD.name,
    GTHREAD_PATCHED.name,
    NGINX.name,
)
