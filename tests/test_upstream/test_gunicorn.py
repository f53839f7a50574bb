"""Gunicorn's own tests, from its source archive: on patched code the same ones fail as on pristine, and no other."""

import shutil
from pathlib import Path
from typing import Dict, Tuple

import environments
import pytest
from environments import Environment, Version
from usr1 import patches, releases

from test_upstream.test_upstream import failures, run_tests

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
@pytest.mark.minutes
@pytest.mark.parametrize("release", RELEASES)
def test_the_same_tests_fail(release: str, tmp_path: Path) -> None:
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
