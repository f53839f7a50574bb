"""What is interrupted: a worker class in a patched environment."""

import functools
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

import environments
import pytest
from environments import GUNICORN, Environment, Workers
from properties.environment import ASGI, GTHREAD, SYNC

SERVED = Path(__file__).with_name("served")
NEWEST = environments.uvicorn(environments.NEWEST)


class Subject(NamedTuple):
    worker_class: str
    patched: Tuple[str, ...]


SUBJECTS: Dict[str, Subject] = {
    "asyncio": Subject("uvicorn.workers.UvicornH11Worker", ("uvicorn",)),
    "uvloop": Subject("uvicorn.workers.UvicornWorker", ("uvicorn",)),
    "both": Subject("uvicorn.workers.UvicornWorker", ("uvicorn", "gunicorn")),
    "sync": Subject(SYNC, ("gunicorn",)),
    "gthread": Subject(GTHREAD, ("gunicorn",)),
    "asgi": Subject(ASGI, ("gunicorn",)),
}


@functools.lru_cache(maxsize=None)
def environment(workers: Workers, *patched: str) -> Environment:
    """One for a release on a Python of its uvicorn's time, or the nearest at hand that it installs on."""
    minor = int(workers.uvicorn.split(".")[1])
    era = 8 if minor < 20 else 11 if minor < 33 else 13
    # Up to 0.16.0 uvicorn takes it that get_event_loop() makes a loop, and newer uvloops do not.
    gunicorn = f"gunicorn=={GUNICORN}" if "gunicorn" in patched else "gunicorn"
    requirements = (*workers.packages(gunicorn), *(["uvloop<0.18"] if minor < 17 else []))
    for python in sorted(environments.pythons(), key=lambda version: abs(version[1] - era)):
        if python < (3, 7):
            continue  # No opcode events
        try:
            pristine = environments.cached(python, *requirements)
        except environments.NotInstallable:
            continue
        releases = {workers.distribution: workers.release, "gunicorn": GUNICORN}
        return environments.patched_until_exit(pristine, *(f"{name} {releases[name]}" for name in patched))
    pytest.skip(f"{workers} installs on no Python at hand")


def subjects(*by_default: str) -> pytest.MarkDecorator:
    """As parameters of a test: these by default, all of them with --full."""
    return pytest.mark.parametrize("subject", environments.parameters(SUBJECTS, by_default))
