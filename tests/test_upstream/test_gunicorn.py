"""Gunicorn: its own tests, with each kind of patch; and the first commit alone, for maintainers who take no other."""

import shutil
from pathlib import Path
from typing import Dict, Tuple

import environments
import pytest
from environments import GUNICORN, Environment, Version
from properties.environment import GEVENT, GTHREAD, SYNC
from properties.expect import Broken
from properties.server import Server
from test_gunicorn.conftest import pristine_environment
from test_gunicorn.test_rotation import rotate_under_load
from usr1 import patches
from usr1.upkeep import releases

from test_upstream.test_upstream import Commit, failures, git, repository, run_tests

#: The oldest release, one in the middle and the newest, with what their tests import.
RELEASES: Dict[str, Tuple[Version, Tuple[str, ...]]] = {
    "20.0.0": ((3, 8), ("pytest", "aiohttp", "gevent", "setuptools<81")),
    "23.0.0": ((3, 11), ("pytest", "gevent", "eventlet")),
    "27.0.1": ((3, 13), ("pytest>=9.0.3", "pytest-asyncio", "gevent", "tornado", "h2", "uvloop", "httpx[http2]")),
}


def outcome(environment: Environment, tree: Path) -> Tuple[int, "set[str]"]:
    """How many tests pass, and which ones fail three times."""
    passed, failed = 0, set()
    for _ in range(3):
        passed += run_tests(environment, tree, "-rfE", "--last-failed").get("passed", 0)
        failed = failures(tree)
        if not failed:
            break
    return passed, failed


@pytest.mark.full
@pytest.mark.parametrize("release", RELEASES)
def test_the_same_tests_fail(release: str, tmp_path: Path) -> None:
    """On patched code the same ones as on pristine, and no other; from the source archive."""
    python, requirements = RELEASES[release]
    if python not in environments.pythons():
        pytest.skip("Python %d.%d is not at hand" % python)
    pristine = environments.cached(python, f"gunicorn=={release}", *requirements)
    # What they start is the installed one; what they import is that of the archive, in the same place for both.
    patched = environments.patched_copy(pristine, tmp_path / "patched", "gunicorn", release)
    source, tree = releases.source("gunicorn", release), tmp_path / "tree"
    found = {}
    for environment in (pristine, patched):
        shutil.copytree(source, tree)
        if environment is patched:
            patch = patches.find("gunicorn", release)
            assert patch is not None
            for part in patch.parts:
                (tree / part.target).write_bytes(part.apply((source / part.target).read_bytes()))
        found[environment.path] = outcome(environment, tree)
        shutil.rmtree(tree)
    passed, failed = found[pristine.path]
    print(f"{release}: {passed} passed, {len(failed)} failed on pristine; patched: {found[patched.path]}")
    assert passed > 100
    assert found[patched.path] == (passed, failed)


UVICORN = "uvicorn.workers.UvicornWorker"
FIRST = Commit("gunicorn", 1)
ROTATIONS = 200


def rotate(environment: Environment, worker_class: str) -> None:
    """With two signals to each process for each rotation."""
    with Server(environment.python, worker_class, options=["--capture-output"]) as server:
        rotate_under_load(server, worker_class, ROTATIONS, target="all", times=2)


@pytest.mark.full
@pytest.mark.parametrize("worker_class", [UVICORN, SYNC, GTHREAD, GEVENT])
def test_loses_nothing(worker_class: str, tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree", FIRST.distribution, FIRST.mails)
    shutil.copytree(pristine_environment(GUNICORN).path, tmp_path / "venv", symlinks=True)
    for changed in git(tree, "diff", "--name-only", "published", "--", "gunicorn").split():
        [file] = (tmp_path / "venv").glob(f"lib/python3.*/site-packages/{changed}")
        file.unlink()  # It is linked to the installer's cache
        shutil.copy(tree / changed, file)
    rotate(pristine_environment(GUNICORN)._replace(path=tmp_path / "venv"), worker_class)


@pytest.mark.full
@pytest.mark.parametrize("worker_class", [UVICORN, SYNC, GTHREAD])  # gevent's leaves the signal to a greenlet
def test_published_does(worker_class: str) -> None:
    with pytest.raises(Broken):
        rotate(pristine_environment(GUNICORN), worker_class)
