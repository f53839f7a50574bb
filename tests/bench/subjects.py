"""What is compared: servers as pip installs them, and patched."""

from typing import Mapping, NamedTuple, Tuple

import environments
from environments import GUNICORN, NEWEST, Environment
from properties.server import Server

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
        return environments.patched_until_exit(pristine, *self.patches) if self.patches else pristine

    def server(self, *options: str, workers: int = 2, variables: Mapping[str, str] = {}) -> Server:
        return Server(self.environment().python, self.worker_class, workers, options, variables)

    @property
    def requests_each(self) -> int:
        """Of a connection: sync keeps none alive."""
        return 1 if self.worker_class == "sync" else 10**9


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
)
