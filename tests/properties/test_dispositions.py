"""Other signals than SIGUSR1, and other processes than the worker."""

import contextlib
import itertools
import re
import signal
from pathlib import Path
from typing import Dict, Iterator, Set, Tuple

import pytest

from properties import wait
from properties.clients import Client, new_request
from properties.conftest import Servers
from properties.environment import is_wsgi
from properties.expect import KILLS, MISSES, Broken, Unanswered, expect
from properties.server import Server, send

Masks = Dict[str, Set[str]]

KINDS = {"SigBlk": "is blocked", "SigIgn": "is ignored", "SigCgt": "is caught"}


def masks(status: str) -> Masks:
    """Which signals a process blocks, ignores and catches, from its /proc/PID/status."""
    found = dict(re.findall(r"^(SigBlk|SigIgn|SigCgt):\t(\w+)$", status, re.MULTILINE))
    return {kind: {s.name for s in signal.Signals if int(mask, 16) >> (s - 1) & 1} for kind, mask in found.items()}


def life(server: Server) -> Dict[str, Masks]:
    """The masks of one worker from place to place, and of a process that its application starts."""
    found = {}
    starting = ["load"] if is_wsgi(server.worker_class) else ["load", "lifespan"]
    places = [*starting, "async", "worker_exit", "atexit"]

    def look(place: str) -> int:
        worker = holds[place].reached()
        found[place] = masks(Path(f"/proc/{worker}/status").read_text())
        holds[place].release()
        return worker

    with contextlib.ExitStack() as stack:
        holds = {place: stack.enter_context(server.hold(place)) for place in places}
        server.signal("workers", signal.SIGKILL)
        for place in starting:
            look(place)
        with Client(server.socket) as client:
            client.send("async", "async")
            look("async")
            client.answer()
        with Client(server.socket) as client:
            # The second and last of the requests that this worker answers
            found["child"] = masks(client.get("spawn", new_request()).decode())
        look("worker_exit")
        server.exit_of(look("atexit"))
    return found


@pytest.fixture
def pair(servers: Servers, published: Dict[str, str], worker_class: str) -> Iterator[Tuple[Server, Server]]:
    """The same server as it is, and as published, with workers that end by themselves."""
    ending = worker_class, "--max-requests", "2"
    with servers.use(*ending, workers=1) as ours, servers.use(*ending, workers=1, variables=published) as other:
        yield ours, other


def test_dispositions(pair: Tuple[Server, Server]) -> None:
    """At each stage of a worker's life, every other signal is handled as in the published release."""
    ours, upstreams = (life(server) for server in pair)
    for place, kinds in ours.items():
        for kind, signals in kinds.items():
            differing = ", ".join(sorted((signals ^ upstreams[place][kind]) - {"SIGUSR1"}))
            expect(
                not differing, f"at {place} it {KINDS[kind]}, or is not, unlike in the pristine release: {differing}"
            )


def test_inheritance(pair: Tuple[Server, Server]) -> None:
    """SIGUSR1 is neither blocked nor ignored in a serving worker, nor in a program that it starts."""
    found = life(pair[0])
    expect("SIGUSR1" in found["async"]["SigCgt"], "a worker that serves does not catch SIGUSR1", KILLS)
    for place, kind in itertools.product(found.keys() - {"worker_exit", "atexit"}, ("SigBlk", "SigIgn")):
        expect("SIGUSR1" not in found[place][kind], f"at {place} SIGUSR1 {KINDS[kind]}", MISSES)


def goes_on(server: Server, worker: int) -> bool:
    """
    Whether a worker that has had a signal goes on serving, and is not just slow on its way out.

    Then it answers twice on one connection. A worker that is to stop closes it after the first answer, which
    takes longer than the worker needs to notice: uvicorn's looks ten times a second.
    """
    try:
        with Client(server.socket, timeout=wait.PATIENCE) as client:
            client.get("stream", new_request(), "200")  # A millisecond of the worker's time for each chunk
            return int(client.get("async", new_request())) == worker
    except Unanswered:
        return False


def end(server: Server, number: signal.Signals) -> str:
    """What a signal does to a worker, in words."""
    [worker] = server.workers()
    send([worker], number)
    with contextlib.suppress(Broken):  # Some releases go on serving after some of these signals
        wait.until(lambda: worker in server.exits(), lambda: "", 1)
    if worker not in server.exits() and goes_on(server, worker):
        return "goes on"
    how = server.exit_of(worker)
    server.wait_until_serving()
    return how


def test_other_ends(servers: Servers, published: Dict[str, str], worker_class: str) -> None:
    """SIGTERM, SIGINT and SIGQUIT end a worker as they end a published one."""
    server = servers.use(worker_class, workers=1)
    with server as patched, servers.use(worker_class, workers=1, variables=published) as pristine:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            ours, upstreams = end(patched, number), end(pristine, number)
            expect(
                ours == upstreams,
                f"a worker told to stop by {number.name} {ours}, where the pristine one {upstreams}",
                KILLS,
            )
