"""The properties hold on patched releases; on published ones some fail, for the reason that the patch exists for."""

import itertools
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import environments
import pytest
from bench.subjects import PATCHED
from environments import GUNICORN, MODULES, UVICORN, Environment, NotInstallable, Version, Workers
from packaging.version import Version as Release
from properties import run as properties
from properties.environment import Unusable, inspect
from properties.server import Server
from test_gunicorn import test_gunicorn as gunicorns
from usr1 import patches

#: The oldest and the newest of uvicorn, and the newest that replaces it.
BY_DEFAULT = (
    "uvicorn 0.13.2",
    f"uvicorn {environments.NEWEST}",
    f"uvicorn-worker 0.4.0 with uvicorn {environments.NEWEST}",
)

#: The releases of Gunicorn that uvicorn's are tested with, and the oldest Python that each runs on.
GUNICORNS: Dict[str, Version] = {
    "20.0.4": (3, 5),
    "20.1.0": (3, 5),
    "21.2.0": (3, 5),
    "22.0.0": (3, 7),
    "23.0.0": (3, 7),
    "25.3.0": (3, 10),
    "27.0.1": (3, 10),
}


def cases() -> List[Any]:
    assert set(BY_DEFAULT) <= set(map(str, environments.VARIANTS))
    oldest, *others = environments.parameters(environments.VARIANTS, BY_DEFAULT)
    # On the oldest Python, which may be root's
    return [pytest.param(*oldest.values, id=oldest.id, marks=pytest.mark.root), *others]


def every_release() -> Iterator[Any]:
    """Each on its oldest and its newest Python here, the newest on all, with the Gunicorns by turns."""
    for patch in [patch for distribution in MODULES for patch in patches.catalogue(distribution)]:
        releases = [one for name in patch.releases for one in environments.workers(patch.distribution, name)]
        times: "Counter[str]" = Counter()
        for workers in releases:
            pythons = workers.pythons()
            if workers != environments.uvicorn(environments.NEWEST):
                pythons = sorted({*pythons[:1], *pythons[-1:]})
            for python in pythons:
                gunicorn = min((one for one in GUNICORNS if runs(one, workers, python)), key=times.__getitem__)
                times[gunicorn] += 1
                yield workers, python, gunicorn
        for gunicorn in GUNICORNS:  # Each patch with each of these
            pythons = [python for python in releases[-1].pythons() if runs(gunicorn, releases[-1], python)]
            if pythons and not times[gunicorn]:
                yield releases[-1], pythons[-1], gunicorn


def runs(gunicorn: str, workers: Workers, python: Version) -> bool:
    return python >= GUNICORNS[gunicorn] and Release(gunicorn) >= Release(workers.gunicorn)


def reason(workers: Workers) -> Tuple[str, str]:
    """Which property fails on a pristine release, and what it says then."""
    if workers.distribution == "uvicorn" and Release(workers.release) < Release("0.13.3"):
        return "test_serving.py::test_promptness", "processes still wrote to a rotated .* after SIGUSR1"
    if workers.distribution == "uvicorn" and Release(workers.release) < Release("0.19.0"):
        return "test_serving.py::test_survival", r"workers? killed by SIGUSR1"
    return "test_boot.py::test_boot", "process(es)? still wrote to a rotated .* after SIGUSR1 during post_fork"


def pristine(workers: Workers) -> Environment:
    """On a Python at hand: by turns on an old one with an old gunicorn, and on a new one with a new."""
    old = environments.VARIANTS.index(workers) % 2 == 0
    gunicorn = f"gunicorn=={workers.gunicorn}" if old else "gunicorn"
    refusals = []
    for python, standard in itertools.product(workers.pythons()[:: 1 if old else -1], (True, False)):
        try:
            environment = environments.cached(python, *workers.packages(gunicorn, standard))
            inspect(environment.path)
            return environment
        except (NotInstallable, Unusable) as error:
            refusals.append(f"Python {python[0]}.{python[1]}: {str(error).splitlines()[-1]}")
    pytest.skip(f"{workers} runs on no Python here. {'; '.join(refusals)}")


def hold(original: Environment, *patched: str, only: str = "") -> None:
    """All properties, or only some, of a copy with these patches, DISTRIBUTION RELEASE."""
    with environments.open_directory() as place:
        status, output = properties.run(original.copied(place / "venv", *patched).path, "-k", only)
    assert status == 0, output


@pytest.mark.parametrize("workers", cases())
def test_patched(workers: Workers, pytestconfig: pytest.Config) -> None:
    only = MODULES[workers.distribution]
    if workers.distribution == "uvicorn-worker" and not pytestconfig.getoption("--full"):
        only += " and not test_worse"  # Its code is uvicorn's, in which other cases look for that
    hold(pristine(workers), workers.name, only=only)


@pytest.mark.full
@pytest.mark.parametrize(("workers", "python", "gunicorn"), every_release(), ids=str)
def test_every_release(workers: Workers, python: Version, gunicorn: str, tmp_path: Path) -> None:
    """As uvicorn[standard] has it."""
    packages = (*workers.packages(f"gunicorn=={gunicorn}"), "websockets")
    try:
        original = environments.make(tmp_path / "published", python, *packages, compiled=True)
        inspect(original.path)
    except (NotInstallable, Unusable) as error:
        pytest.skip(f"not installable: {str(error).splitlines()[-1]}")
    try:
        hold(original, workers.name, only=MODULES[workers.distribution])
    except AssertionError:
        broken = broken_as_published(original)
        if not broken:
            raise
        pytest.skip(f"broken as published: {broken} requests without any signal")


def broken_as_published(published: Environment) -> int:
    """How many requests are not answered, of a hundred to each worker class, while nobody sends a signal."""
    broken = 0
    for worker_class in inspect(published.path).worker_classes:
        with Server(published.python, worker_class) as server:
            for _ in range(100):
                try:
                    server.get()
                except OSError:
                    broken += 1
    return broken


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start Gunicorn with --user")
def test_unprivileged(open_clone: None) -> None:
    """Under both patches: uvicorn's alone leaves it to Gunicorn."""
    environment = PATCHED.environment()
    if not environments.is_open(environment.python):
        pytest.skip(f"the user nobody may not run {environment.python.resolve()}")
    status, output = properties.run(environment.path, test="test_customised.py::test_unprivileged")
    assert status == 0 and "skipped" not in output, output


def test_files_that_no_logger_has() -> None:
    """Under both patches: uvicorn's leaves them to Gunicorn's."""
    gunicorns.test_files_that_no_logger_has(gunicorns.Gunicorn(GUNICORN, PATCHED.environment()), UVICORN)


@pytest.mark.parametrize("uvicorn", environments.parameters(["without", "published", "patched"], ["published"]))
@pytest.mark.parametrize("release", environments.parameters(gunicorns.RELEASES, [gunicorns.NEWEST]))
def test_patched_gunicorn(release: str, uvicorn: str, pytestconfig: pytest.Config) -> None:
    """Under each of its own worker classes, and uvicorn's: without uvicorn, with a published one, and a patched one."""
    if uvicorn == "published" and gunicorns.is_old(release):
        pytest.skip("two promises take the patch of uvicorn, before uvicorn 0.19.0: see docs/design.md")
    original = gunicorns.pristine_environment(release)
    if uvicorn == "without":
        packages = (f"gunicorn=={release}", "gevent", "packaging", "setuptools<81")
        original = environments.cached(gunicorns.python(release), *packages)
    more = [f"uvicorn {gunicorns.uvicorn(release)}"] * (uvicorn == "patched")
    # By default own fixes: its code for them is another than uvicorn's
    hold(original, f"gunicorn {release}", *more, only="" if pytestconfig.getoption("--full") else "own_fix")


#: What an expression in the place of a sentence has in it, or an exception that nobody put in words.
EXPRESSION = re.compile(
    r"\bassert\b|[!=<>]=|\bnot \[|\[\]|\bNone\b|\blambda\b|timed out|: (?:True|False)$|^\w*(?:Error|Exception)\b"
)


@pytest.mark.full
@pytest.mark.parametrize("release", ["0.13.2", "0.18.3", environments.NEWEST])
def test_what_is_broken_is_told_in_sentences(release: str) -> None:
    status, output = properties.run(pristine(environments.uvicorn(release)).path, "--tb=no", "-rN")
    assert status == 1, output
    reasons = re.findall(r"^(?:FAILED|ERROR|SKIPPED) .*\n +(.*)", output, re.MULTILINE)
    assert len(reasons) == len(re.findall("^(?:FAILED|ERROR|SKIPPED) ", output, re.MULTILINE)) > 5, output
    assert [reason for reason in reasons if EXPRESSION.search(reason)] == [], output
    verdict = r"^\d+ of \d+ promises are broken here: a rotation .*does not reopen log files"
    assert re.search(verdict, output, re.MULTILINE), output


@pytest.mark.parametrize("workers", cases())
def test_pristine(workers: Workers) -> None:
    test, said = reason(workers)
    module = MODULES[workers.distribution]
    status, output = properties.run(pristine(workers).path, "--exitfirst", "-k", module, test=test)
    assert status == 1, output
    assert re.search(said, output), output
