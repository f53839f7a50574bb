"""What is compared: servers as pip installs them, and patched."""

from typing import Mapping, NamedTuple, Tuple

import environments
from environments import GUNICORN, NEWEST, UVICORN, Environment
from properties.server import Server
from test_gunicorn.test_gunicorn import python


class Subject(NamedTuple):
    name: str
    worker_class: str
    packages: Tuple[str, ...]
    patches: Tuple[str, ...] = ()  # DISTRIBUTION RELEASE
    gunicorn: str = GUNICORN  # Which says what Python it runs on

    def environment(self) -> Environment:
        original = environments.cached(python(self.gunicorn), *self.packages)
        return environments.patched_until_exit(original, *self.patches)

    def server(self, *options: str, workers: int = 2, variables: Mapping[str, str] = {}) -> Server:
        return Server(self.environment().python, self.worker_class, workers, options, variables)


Pair = Tuple[Subject, Subject]  # As published, and patched


def _pair(subject: Subject, *patches: str, how: str = "both patched") -> Pair:
    return subject, subject._replace(name=f"{subject.name}, {how}", patches=patches)


def _old(release: str, gunicorn: str) -> Pair:
    packages = environments.packages(release, f"gunicorn=={gunicorn}")
    subject = Subject(f"uvicorn {release}", UVICORN, packages, gunicorn=gunicorn)
    return _pair(subject, f"uvicorn {release}", f"gunicorn {gunicorn}")


def _gunicorn(worker_class: str, *more: str) -> Pair:
    packages = (f"gunicorn=={GUNICORN}", "packaging", *more)
    return _pair(Subject(f"Gunicorn {worker_class.split('.')[0]}", worker_class, packages), THEIRS, how="patched")


OURS, THEIRS = f"uvicorn {NEWEST}", f"gunicorn {GUNICORN}"
PACKAGES = environments.packages(NEWEST, f"gunicorn=={GUNICORN}")
WORKER = Subject("uvicorn-worker 0.4.0", "uvicorn_worker.UvicornWorker", ("uvicorn-worker==0.4.0", *PACKAGES))

PRISTINE, PATCHED = _pair(Subject(OURS, UVICORN, PACKAGES), OURS, THEIRS)
ALONE = PATCHED._replace(name=f"{OURS}, patched", patches=(OURS,))
GTHREAD, GTHREAD_PATCHED = _gunicorn("gthread")
OLD = (*_old("0.13.1", "20.0.4"), *_old("0.18.3", "20.1.0"))

SUBJECTS = (
    PRISTINE,
    PATCHED,
    ALONE,
    PATCHED._replace(name=f"{OURS}, Gunicorn patched", patches=(THEIRS,)),
    *OLD,
    *_pair(WORKER, WORKER.name, THEIRS),
    *_gunicorn("sync"),
    GTHREAD,
    GTHREAD_PATCHED,
    *_gunicorn("asgi"),
    *_gunicorn("aiohttp.GunicornWebWorker", "aiohttp==3.13.2"),
)

#: For what takes long: real logrotate, which compresses.
MAIN = (PRISTINE, PATCHED, ALONE, *OLD, GTHREAD, GTHREAD_PATCHED)
