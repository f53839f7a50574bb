"""The settings module, vendor/gunicorn-usr1, in environments that are otherwise as published."""

import shutil
from pathlib import Path
from typing import Callable, Mapping

import environments
import pytest
from environments import UVICORN, Environment
from properties.server import Server

VENDOR = Path(__file__).resolve().parents[2] / "vendor" / "gunicorn-usr1"
MODULE = VENDOR / "gunicorn_usr1.py"

#: How tests/properties/served/configuration.py learns of it.
SETTINGS = {"USR1_SETTINGS": "gunicorn_usr1"}

GEVENT = ("gevent", "packaging")  # Which gevent's worker imports

#: The published environments, by their names: the newest Python here that runs them.
PUBLISHED = {
    "uvicorn 0.13.1": ("uvicorn==0.13.1", *environments.packages("0.13.1", "gunicorn==20.0.4")),
    "uvicorn 0.18.3": environments.packages("0.18.3", "gunicorn==23.0.0"),
    "uvicorn 0.28.1": environments.packages("0.28.1", "gunicorn==23.0.0"),
    "uvicorn 0.54.0": environments.packages("0.54.0", "gunicorn==27.0.1"),
    "uvicorn-worker 0.4.0": ("uvicorn-worker==0.4.0", *environments.packages("0.54.0", "gunicorn==27.0.1")),
    "gunicorn 20.0.4": ("gunicorn==20.0.4", *GEVENT, "setuptools<81"),
    "gunicorn 23.0.0": ("gunicorn==23.0.0", *GEVENT),
    "gunicorn 27.0.1": ("gunicorn==27.0.1", *GEVENT),
}


def published(name: str) -> Environment:
    python = max(version for version in environments.pythons() if version <= (3, 13))
    return environments.cached(python, *PUBLISHED[name])


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Environment]:
    """Makes a copy of a published environment, to install into."""
    return lambda name: published(name).copied(tmp_path / "venv")


def put(environment: Environment) -> Environment:
    """The plain file, beside the packages."""
    shutil.copy(MODULE, environment.site_packages)
    return environment


def serve(
    environment: Environment,
    worker_class: str = UVICORN,
    *options: str,
    workers: int = 1,
    variables: Mapping[str, str] = {},
    modules: Mapping[str, str] = {},
) -> Server:
    """A server that has the module as a plain file in its own directory, and the hook."""
    modules = {"gunicorn_usr1": MODULE.read_text(), **modules}
    return Server(environment.python, worker_class, workers, options, {**SETTINGS, **variables}, modules)
