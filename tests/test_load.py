"""Full load: 16 keep-alive clients, 2 workers, and a rotation every 2 ms; and much that is printed."""

import re
import time
from collections import Counter

import environments
import pytest
from environments import GUNICORN, NEWEST, UVICORN, Environment
from properties import wait
from properties.clients import Load, new_request
from properties.environment import SYNC
from properties.expect import Broken
from properties.server import Server
from test_module.test_module import SETTINGS, put
from websockets.sync.client import unix_connect

BY_UVICORN, BY_GUNICORN, MODULE = f"uvicorn {NEWEST}", f"gunicorn {GUNICORN}", "module"


def environment(*patched: str) -> Environment:
    newest = environments.pythons_for(NEWEST)[-1:]
    if not newest:
        pytest.skip(f"uvicorn {NEWEST} runs on none of the Pythons here")
    requirements = (*environments.packages(NEWEST, f"gunicorn=={GUNICORN}"), "websockets")
    return environments.patched_until_exit(environments.cached(newest[0], *requirements), *patched)


def rotate_until_it_complains(target: Environment, seconds: float) -> None:
    """Or for so long: nothing is lost, doubled, broken or dead."""
    with Server(target.python, UVICORN) as server:
        workers, quiet = server.workers(), server.stderr()
        with Load(server.socket, 16) as load:
            end = time.monotonic() + seconds
            while time.monotonic() < end and server.stderr() == quiet:
                server.logs.rotate()
                server.signal("arbiter")
                time.sleep(0.002)
        server.expect_silence(quiet, "under full load")
        server.expect_same_workers(workers, "under full load")
        load.expect_unbroken()
        server.logs.expect_exactly_once(load.requests)


def test_patched(request: pytest.FixtureRequest) -> None:
    rotate_until_it_complains(environment(BY_UVICORN), seconds=20 if request.config.getoption("--full") else 6)


def test_pristine() -> None:
    with pytest.raises(Broken, match="reentrant call inside"):
        rotate_until_it_complains(environment(), seconds=60)


@pytest.mark.parametrize(
    "worker_class, patched",
    [(UVICORN, (BY_UVICORN,)), (UVICORN, (BY_UVICORN, BY_GUNICORN)), (SYNC, (BY_GUNICORN,)), (SYNC, (MODULE,))],
    ids=str,
)
def test_printed_lines_stay_whole(worker_class: str, patched: "tuple[str, ...]") -> None:
    """With --capture-output, what is printed is written in pieces of 8 KiB, unless it is flushed."""
    target, variables = environment(*(name for name in patched if name != MODULE)), {}
    if MODULE in patched:
        put(target)
        variables = SETTINGS
    with Server(target.python, worker_class, 1, ["--capture-output"], variables) as server:
        requests = []
        for _ in range(2):
            requests += [server.get("buffer") for _ in range(600)]
            server.rotate(target="workers")
        texts = [path.read_text() for path in server.logs.directory.glob("error.log*")]
        printed = [re.sub(r"\[\d{4}-[^\n]*\n", "", text) for text in texts]  # What is logged comes between the pieces
        lines = Counter(line for text in printed for line in text.splitlines())
        assert [request for request in requests if lines[f"printed {request}"] != 1] == []


def test_a_websocket_stays_connected() -> None:
    """What is said in it is answered, and logged once."""
    requests = [new_request() for _ in range(100)]
    with Server(environment(BY_UVICORN).python, UVICORN, 1) as server:
        with unix_connect(str(server.socket), "ws://test/websocket/talk") as socket:
            for request in requests:
                server.logs.rotate()
                server.signal("arbiter")
                socket.send(request)
                assert socket.recv(wait.PATIENCE) == request
        server.logs.expect_exactly_once(requests, ["error.log", "application.log"])
