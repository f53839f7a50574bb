"""Every signal but SIGUSR1 does to a patched worker what it does to a pristine one."""

import re
import signal
from collections import defaultdict
from typing import Dict, List, NamedTuple, Tuple

import environments
import pytest
from environments import Environment, Workers
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from properties import wait
from properties.clients import Client
from properties.server import Server
from test_interruptions.subjects import environment
from usr1 import patches

Step = Tuple[str, signal.Signals]
S = signal.Signals

# What does not end a worker comes first, what ends it next; the last step ends the arbiter.
steps = st.tuples(
    st.sampled_from(["worker", "arbiter"]),
    st.sampled_from([S.SIGWINCH, S.SIGCHLD, S.SIGTERM, S.SIGINT, S.SIGABRT, S.SIGHUP, S.SIGQUIT]),
).filter(lambda step: step[0] == "worker" or step[1] in (S.SIGWINCH, S.SIGCHLD, S.SIGHUP))
ends = st.sampled_from([S.SIGTERM, S.SIGINT, S.SIGQUIT])


class Events(NamedTuple):
    answers: List[bytes]
    exits: List[int]  # What wait(2) said, or would have said, of each worker, sorted
    arbiter: int
    lines: List[List[str]]  # Of each process in the error log, in the order that they began
    access: List[str]
    stderr: str


def fatal(step: Step, workers: Workers) -> bool:
    """Whether a worker ends of it, patched or not."""
    target, number = step
    if target == "arbiter":
        return number == S.SIGHUP  # It lets new workers take the places of all
    version = Version(workers.uvicorn)
    if number == S.SIGHUP:
        return version > Version("0.13.2")  # Before, the arbiter's inherited handlers swallow it, and SIGQUIT
    if number == S.SIGQUIT:  # From 0.19.0 on, and in uvicorn-worker, the event loop takes it, and leaves it at that
        return workers.distribution == "uvicorn" and Version("0.13.2") < version < Version("0.19.0")
    return number in (S.SIGTERM, S.SIGINT, S.SIGABRT)


def returns_codes(workers: Workers) -> bool:
    """Up to 0.13.2 the arbiter's handler for SIGCHLD, inherited, takes the codes of subprocesses at random."""
    return Version(workers.uvicorn) > Version("0.13.2")


def observe(target: Environment, workers: Workers, source: str, sequence: List[Step], end: signal.Signals) -> Events:
    modules = {"worker": source}
    answers = []
    with Server(target.python, "worker.UvicornWorker", 1, ["--graceful-timeout", "5"], modules=modules) as server:
        answers.append(_request(server, workers))
        for step in sequence:
            oldest = server.workers()[0]
            _signal(server, *step)
            if fatal(step, workers):
                server.exit_of(oldest)
                server.wait_until_serving()
            answers.append(_request(server, workers))
        server.signal("arbiter", end)
        status = server.process.wait(wait.PATIENCE)
        return Events(
            answers,
            # Those that the arbiter leaves unseen are those that it killed last
            sorted([*server.exits().values(), *(S.SIGKILL for _ in server.workers())]),
            status,
            _by_process(server.logs.lines("error.log")),
            [_normal(line) for line in server.logs.lines("access.log")],
            _normal(server.stderr()),
        )


def _signal(server: Server, target: str, number: signal.Signals) -> None:
    """Send it, and let the arbiter handle it: of two that wait, the lower number comes first."""
    said = f"Handling signal: {number.name[len('SIG') :].lower()}"

    def handled() -> int:
        return sum(said in line for line in server.logs.lines("error.log"))

    before = handled()
    server.signal(target, number)
    if target == "arbiter" and number != S.SIGCHLD:  # Of SIGCHLD it says nothing
        wait.until(lambda: handled() > before, lambda: f"the arbiter does not say {said!r}")


def _request(server: Server, workers: Workers) -> bytes:
    with Client(server.socket) as client:
        return client.get("exit_codes" if returns_codes(workers) else "async", "id")


# Races without us: the arbiter may send SIGTERM twice, and the second one has uvicorn skip its shutdown; the arbiter
# may leave before it sees its last worker die, so that the exits say more; and a thread of it says when it listens.
# With us a worker no longer closes its listening socket twice, which it has said of the second time.
SKIPPED = re.compile(
    "Error while closing socket|"
    "Waiting for application shutdown|Application shutdown complete|ASGI 'lifespan' protocol appears unsupported"
    r"|Worker \(pid:\d+\) (was sent|exited with)|Worker with pid \d+ was terminated|Control socket listening"
)


def _by_process(lines: List[str]) -> List[List[str]]:
    found: Dict[str, List[str]] = defaultdict(list)
    process = ""
    for line in lines:
        match = re.match(r"\[[^]]*\] \[(\d+)\] ", line)
        process = match[1] if match else process  # The rest of a traceback has none
        if not SKIPPED.search(line):
            found[process].append(_normal(line))
    return list(found.values())


def _normal(text: str) -> str:
    return re.sub(r"usr1-\w+|\d+", "N", text)


def sources(target: Environment, workers: Workers) -> Tuple[str, str]:
    patch = patches.find(workers.distribution, workers.release)
    assert patch is not None
    [part] = patch.parts
    [file] = target.path.glob(f"lib/python3.*/site-packages/{part.target}")
    return file.read_text(), part.apply(file.read_bytes()).decode()


@pytest.mark.full
@pytest.mark.parametrize("workers", environments.VARIANTS, ids=str)
def test_other_signals_do_what_they_did(workers: Workers) -> None:
    target = environment(workers)
    pristine, patched = sources(target, workers)

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @example(sequence=[("worker", S.SIGCHLD), ("worker", S.SIGQUIT), ("worker", S.SIGABRT)], end=S.SIGTERM)
    @given(sequence=st.lists(steps, max_size=3), end=ends)
    def check(sequence: List[Step], end: signal.Signals) -> None:
        outcome = observe(target, workers, patched, sequence, end)
        assert outcome == observe(target, workers, pristine, sequence, end)
        if returns_codes(workers):
            assert outcome.answers == [b"[0, 3, -9]"] * (len(sequence) + 1)

    check()
