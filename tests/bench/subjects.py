"""What is compared: servers as pip and apt install them, and patched."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

import environments
import psutil
from environments import Environment
from properties import wait
from properties.activities import ended
from properties.expect import Unanswered
from properties.logs import NAMES
from properties.server import Server, send
from test_reopen.nginx import Nginx
from usr1 import patches
from usr1.patches import Patch

SERVED = Path(__file__).with_name("served")
CACHE = environments.CACHE.parent / "bench"

UVICORN = "uvicorn.workers.UvicornWorker"
NEWEST = environments.COMBINATIONS[-1]
GUNICORN = "27.0.1"


class Subject(NamedTuple):
    name: str
    worker_class: str
    packages: Tuple[str, ...]
    patches: Tuple[str, ...] = ()  # DISTRIBUTION RELEASE, or the path of a patch
    application: str = "asgi"
    old: bool = False  # Runs on an old Python only

    @property
    def patched(self) -> bool:
        return bool(self.patches)

    def environment(self) -> Environment:
        found = environments.pythons()
        python = min(version for version in found if version >= (3, 8)) if self.old else max(found)
        pristine = environments.cached(python, *self.packages)
        if not self.patches:
            return pristine
        wanted = [self._patch(one) for one in self.patches]
        path = CACHE / hashlib.sha256("".join([pristine.path.name, *(one.text for one in wanted)]).encode()).hexdigest()
        if not path.exists():
            new = path.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(pristine.path, new, symlinks=True)
            for part in [part for one in wanted for part in one.parts]:
                [target] = new.glob(f"lib/python3.*/site-packages/{part.target}")
                target.write_bytes(part.apply(target.read_bytes()))
            new.rename(path)
        return Environment(path, self.packages)

    def _patch(self, one: str) -> Patch:
        if one.endswith(".patch"):
            return patches.read(patches.PATCHES / one)
        found = patches.find(*one.split())
        assert found is not None, one
        return found

    def server(self, *options: str, workers: int = 2, variables: Mapping[str, str] = {}) -> "Served":
        if self.worker_class == "nginx":
            return Master(workers)
        files = {"application": self.application, "logs": "logs"}
        modules = {name: (SERVED / f"{file}.py").read_text() for name, file in files.items()}
        python = self.environment().python
        if self in OTHERS:
            return Other(self.worker_class, python, workers, modules)
        if self.worker_class == "gthread":
            options = (*options, "--threads", "8")
        sources = {
            path.stem: path.read_text() for path in SERVED.glob("*.py") if path.stem in (self.application, "logs")
        }
        modules = {"logs": sources["logs"], "application": sources[self.application]}
        python = self.environment().python
        return Server(python, self.worker_class, workers, options, variables, modules)

    @property
    def keeps_alive(self) -> bool:
        return self.worker_class != "sync" and self not in OTHERS

    @property
    def logs(self) -> Sequence[str]:
        if self.worker_class == "nginx":
            return ("access.log",)
        return ("access.log", "application.log") if self in OTHERS else NAMES


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


class Other(Server):
    """hypercorn or granian, which know nothing of rotation."""

    def __init__(self, name: str, python: Path, workers: int, modules: Mapping[str, str]) -> None:
        super().__init__(python, name, workers, modules=modules)
        access = str(self.logs.path("access.log"))
        (self.directory / "log.json").write_text(json.dumps(_logging(access)))
        options = {
            "hypercorn": ["--bind", "unix:socket", "--access-logfile", access],
            "granian": ["--uds", "socket", "--interface", "asgi", "--access-log", "--log-config", "log.json"],
        }[name]
        script = str(python.with_name(name))
        self.command = [str(python), script, *options, "--workers", str(workers), "application:app"]

    def wait_until_serving(self) -> None:
        def serving() -> bool:
            with contextlib.suppress(Unanswered):
                return len(self.workers()) >= self.worker_count and bool(self.get())
            return False

        wait.until(serving, lambda: f"it does not serve: {self.stderr()[-300:]}")

    def workers(self) -> List[int]:
        started = [int(details[0]) for event, *details in self.events() if event == "started"]
        return [pid for pid in started if not ended(pid)]

    def exits(self) -> Dict[int, int]:
        return {}  # Not known: nothing that a test can hold runs there


def _logging(path: str) -> Dict[str, object]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": path}},
        "loggers": {"granian.access": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }


Served = Union[Server, Master]


def _uvicorn(name: str, *patched: str) -> Subject:
    return Subject(name, UVICORN, environments.packages(NEWEST, f"gunicorn=={GUNICORN}"), patched)


def _old(release: str, gunicorn: str, *patched: str) -> Subject:
    name = f"uvicorn {release}" + (", both patched" if patched else "")
    return Subject(name, UVICORN, environments.packages(release, f"gunicorn=={gunicorn}"), patched, old=True)


def _gunicorn(worker_class: str, *patched: str, application: str = "wsgi", also: Tuple[str, ...] = ()) -> Subject:
    name = f"Gunicorn {worker_class.split('.')[0]}" + (", patched" if patched else "")
    return Subject(name, worker_class, (f"gunicorn=={GUNICORN}", "packaging", *also), patched, application)


OURS = f"uvicorn {NEWEST}"
THEIRS = f"gunicorn {GUNICORN}"
AIOHTTP = ("aiohttp==3.13.2",)

PRISTINE = _uvicorn(f"uvicorn {NEWEST}")
PATCHED = _uvicorn(f"uvicorn {NEWEST}, both patched", OURS, THEIRS)
ALONE = _uvicorn(f"uvicorn {NEWEST}, patched", OURS)
REVISION_1 = _uvicorn(f"uvicorn {NEWEST}, revision 1", "uvicorn/superseded/0.36.0-0.54.0.r1.patch")
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
    Subject(
        "uvicorn-worker 0.4.0",
        "uvicorn_worker.UvicornWorker",
        ("uvicorn-worker==0.4.0", *environments.packages(NEWEST, f"gunicorn=={GUNICORN}")),
    ),
    Subject(
        "uvicorn-worker 0.4.0, both patched",
        "uvicorn_worker.UvicornWorker",
        ("uvicorn-worker==0.4.0", *environments.packages(NEWEST, f"gunicorn=={GUNICORN}")),
        ("uvicorn-worker 0.4.0", THEIRS),
    ),
    _gunicorn("sync"),
    _gunicorn("sync", THEIRS),
    GTHREAD,
    GTHREAD_PATCHED,
    _gunicorn("asgi", application="asgi"),
    _gunicorn("asgi", THEIRS, application="asgi"),
    _gunicorn("aiohttp.GunicornWebWorker", application="aiohttps", also=AIOHTTP),
    _gunicorn("aiohttp.GunicornWebWorker", THEIRS, application="aiohttps", also=AIOHTTP),
    NGINX,
)

OTHERS = (Subject("hypercorn", "hypercorn", ("hypercorn==0.18.0",)), Subject("granian", "granian", ("granian==2.8.9",)))

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
