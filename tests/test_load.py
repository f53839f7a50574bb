"""Full load: 16 keep-alive clients, 2 workers, and a rotation every 2 ms."""

import math
import time
from pathlib import Path
from typing import Dict

import environments
import pytest
from environments import GUNICORN, NEWEST, Environment
from properties.clients import Load
from properties.server import Server

REENTRANT = "reentrant call inside"


def pristine() -> Environment:
    newest = environments.pythons_for(NEWEST)[-1:]
    if not newest:
        pytest.skip(f"uvicorn {NEWEST} runs on none of the Pythons here")
    return environments.cached(newest[0], *environments.packages(NEWEST, f"gunicorn=={GUNICORN}"), "websockets")


def storm(environment: Environment, seconds: float, enough: float = math.inf) -> Dict[str, object]:
    """Load and rotations for so long, or until there are enough errors; what was found wrong."""
    with Server(environment.python, "uvicorn.workers.UvicornWorker") as server:
        quiet = server.stderr()
        workers = server.workers()
        rotations = 0
        with Load(server.socket, 16) as load:
            end = time.monotonic() + seconds
            while time.monotonic() < end and server.stderr().count(REENTRANT) < enough:
                server.logs.rotate()
                server.signal("arbiter")
                rotations += 1
                time.sleep(0.002)
        print(f"{len(load.requests)} requests answered, {rotations} rotations in {seconds:g} s")
        assert load.requests
        return {
            "stderr": server.stderr()[len(quiet) :],
            "not exactly once": server.logs.not_exactly_once(load.requests),
            "broken": load.broken,
            "deaths": server.deaths(),
            "other workers": set(server.workers()) ^ set(workers),
        }


def test_patched(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment = environments.patched_copy(pristine(), tmp_path / "venv", "uvicorn", NEWEST)
    found = storm(environment, seconds=20 if request.config.getoption("--full") else 6)
    assert not any(found.values()), found


def test_pristine() -> None:
    # A thousand in 20 s of a machine that does nothing else: this many wherever.
    found = storm(pristine(), seconds=60, enough=20)
    assert str(found["stderr"]).count(REENTRANT) >= 20, found


@pytest.mark.full
def test_no_boot_of_many_misses_a_rotation(tmp_path: Path) -> None:
    """
    Whatever garbage the arbiter hands down: on Python 3.7, a handler that is collected while logging makes its locks
    anew after fork() leaves a lock of logging's held for ever.
    """
    python = (3, 7)
    if python not in environments.pythons():
        pytest.skip("there is no Python 3.7")
    original = environments.cached(python, *environments.packages("0.21.1", "gunicorn==22.0.0"))
    environment = environments.patched_copy(original, tmp_path / "venv", "uvicorn", "0.21.1")
    log = {"HOOK_LOG": "logs/hook.log"}
    with Server(environment.python, "uvicorn.workers.UvicornWorker", 1, variables=log) as server:
        for n in range(80):
            with server.booting() as worker:
                server.logs.rotate(["hook.log"], create=n % 2 == 0)
                server.signal("workers")
            server.get()
            server.wait_until_reopened([worker])
            server.logs.discard(server.logs.rotated())
