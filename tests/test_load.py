"""Full load: 16 keep-alive clients, 2 workers, and a rotation every 2 ms; and much that is printed."""

import re
from collections import Counter

import pytest
from bench.subjects import ALONE, OURS, THEIRS
from environments import UVICORN
from properties import wait
from properties.clients import Load, new_request
from properties.environment import SYNC
from properties.schedules import storm
from properties.server import Server
from test_module.test_module import MODULE, put
from websockets.sync.client import unix_connect

PATCHED = ALONE._replace(packages=(*ALONE.packages, "websockets"))


def test_patched(request: pytest.FixtureRequest) -> None:
    """Nothing is lost, doubled, broken or dead."""
    with PATCHED.server() as server:
        workers, quiet = server.workers(), server.stderr()
        with Load(server.socket, 16) as load:
            storm(server, load, rotations=7000 if request.config.getoption("--full") else 2000)
        server.expect_silence(quiet, "under full load")
        server.expect_same_workers(workers, "under full load")
        load.expect_unbroken()
        server.logs.expect_exactly_once(load.requests)


@pytest.mark.parametrize(
    "worker_class, patches",
    [(UVICORN, (OURS,)), (UVICORN, (OURS, THEIRS)), (SYNC, (THEIRS,)), (SYNC, ())],
    ids=str,
)
def test_printed_lines_stay_whole(worker_class: str, patches: "tuple[str, ...]") -> None:
    """With --capture-output, what is printed is written in pieces of 8 KiB, unless it is flushed."""
    subject, variables = PATCHED._replace(worker_class=worker_class, patches=patches), {}
    if not patches:
        put(subject.environment())
        variables = {"USR1_SETTINGS": MODULE.stem}
    with subject.server("--capture-output", workers=1, variables=variables) as server:
        print_whole_lines(server)


def print_whole_lines(server: Server) -> None:
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
    with PATCHED.server(workers=1) as server:
        with unix_connect(str(server.socket), "ws://test/websocket/talk") as socket:
            for request in requests:
                server.logs.rotate()
                server.signal("arbiter")
                socket.send(request)
                assert socket.recv(wait.PATIENCE) == request
        server.logs.expect_exactly_once(requests, ["error.log", "application.log"])
