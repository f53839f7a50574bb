"""Full load: 16 keep-alive clients, 2 workers, and a rotation every 2 ms."""

import math
import time
from pathlib import Path
from typing import Dict

import environments
import pytest
from environments import GUNICORN, NEWEST, Environment
from properties import wait
from properties.clients import Load, new_request
from properties.server import Server
from websockets.sync.client import unix_connect

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


def test_a_websocket_stays_connected(tmp_path: Path) -> None:
    environment = environments.patched_copy(pristine(), tmp_path / "venv", "uvicorn", NEWEST)
    with Server(environment.python, "uvicorn.workers.UvicornWorker", 1) as server:
        talk(server)


def talk(server: Server) -> None:
    """What is said in a websocket is answered, and logged once, whenever the logs are rotated."""
    requests = [new_request() for _ in range(100)]
    with unix_connect(str(server.socket), "ws://test/websocket/talk") as socket:
        for request in requests:
            server.logs.rotate()
            server.signal("arbiter")
            socket.send(request)
            assert socket.recv(wait.PATIENCE) == request
    server.logs.expect_exactly_once(requests, ["error.log", "application.log"])
