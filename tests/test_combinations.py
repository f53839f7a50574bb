"""
The signal properties on one release of each combination of file and hook: patched, where all of
them hold, and pristine, where some fail for the reason that the patch exists for.
"""

import itertools
import re
from pathlib import Path
from typing import Tuple

import environments
import pytest
from environments import Environment, NotInstallable
from packaging.version import Version as Release
from properties import run as properties
from properties import target
from usr1 import patches

COMBINATIONS = [
    (distribution, patch.releases[-1])
    for distribution in patches.DISTRIBUTIONS
    for patch in patches.catalogue(distribution)
]
OLDEST_GUNICORN = ("gunicorn==20.0.4", "setuptools<81")  # It imports pkg_resources
MODULES = {"uvicorn": "uvicorn.workers", "uvicorn-worker": "uvicorn_worker"}

SWALLOWED = ("test_serving.py::test_reopening", "SIGUSR1 was swallowed: .* still writes to")
KILLED = ("test_serving.py::test_survival", "SIGUSR1 was fatal: .* killed by SIGUSR1")
MISSED = ("test_boot.py::test_boot", "SIGUSR1 during post_fork was missed")


def reason(distribution: str, release: str) -> Tuple[str, str]:
    """Which property fails on a pristine release, and what it says then."""
    if distribution == "uvicorn" and Release(release) < Release("0.13.3"):
        return SWALLOWED
    if distribution == "uvicorn" and Release(release) < Release("0.19.0"):
        return KILLED
    return MISSED


def pristine(distribution: str, release: str) -> Environment:
    """The release on a Python at hand: by turns on an old one with an old gunicorn, and on a new one with a new."""
    if distribution == "uvicorn-worker":
        uvicorn = "uvicorn" if Release(release) >= Release("0.4.0") else "uvicorn<0.36"
        return environments.cached(max(environments.pythons()), f"uvicorn-worker=={release}", "gunicorn", uvicorn)
    old = environments.COMBINATIONS.index(release) % 2 == 0
    pythons = environments.pythons_for(release)[:: 1 if old else -1]
    refusals = []
    for python, standard in itertools.product(pythons, (True, False)):
        gunicorn, *others = OLDEST_GUNICORN if old else ("gunicorn",)
        try:
            environment = environments.cached(python, *environments.packages(release, gunicorn, standard), *others)
            target.inspect(environment.path)
            return environment
        except (NotInstallable, target.Unusable) as error:
            refusals.append(f"Python {python[0]}.{python[1]}: {str(error).splitlines()[-1]}")
    pytest.skip(f"{distribution} {release} runs on no Python here. {'; '.join(refusals)}")


@pytest.mark.parametrize(("distribution", "release"), COMBINATIONS)
def test_patched(distribution: str, release: str, tmp_path: Path) -> None:
    original = pristine(distribution, release)
    environment = environments.patched_copy(original, tmp_path / "venv", distribution, release)
    status, output = properties.run(environment.path, "-k", MODULES[distribution])
    assert status == 0, output


@pytest.mark.parametrize(("distribution", "release"), COMBINATIONS)
def test_pristine(distribution: str, release: str) -> None:
    test, said = reason(distribution, release)
    status, output = properties.run(pristine(distribution, release).path, "-k", MODULES[distribution], test=test)
    assert status == 1, output
    assert re.search(said, output), output
