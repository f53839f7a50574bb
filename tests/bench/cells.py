"""What is measured of a subject; each returns plain figures, for JSON."""

import contextlib
import os
import random
import statistics
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple, TypeVar

from bench.subjects import Subject
from properties import clients
from properties.clients import Load
from properties.expect import Broken
from properties.figures import Watched
from properties.logs import NAMES
from properties.server import Server
from test_reopen.conftest import Logrotate

T = TypeVar("T")
Figures = Dict[str, Any]

CLIENTS = 16

#: How logs are rotated or written, by the letter that docs/benchmarks.md explains.
SCHEDULES = ("a", "b", "c", "d", "e", "f", "g root", "g queue")


def logrotate(server: Server, directives: str, postrotate: str = "") -> None:
    """Have real logrotate rotate them."""
    rotation = Logrotate(server.logs, "-t 2", postrotate, directives)
    # It fails where reopen.sh says that a log is not let go of, and keeps that.
    rotation.run(["env", f"PATH={os.environ['PATH']}:/usr/sbin:/sbin"])
    rotation.unpack()
    server.logs.take()


def losses(subject: Subject, schedule: str, rotations: int) -> Figures:
    """What becomes of lines, requests and workers in so many rotations under load."""
    clients.patience.seconds = 3.0
    letter, _, by = schedule.partition(" ")
    kinds = ["async"] * 300 + ["late"] if letter == "f" else ["async"]
    with subject.server("--capture-output", "--pid", "pidfile", variables={"LOGGED_BY": by or "named"}) as server:
        watched = Watched(server, NAMES)
        steps: Dict[str, Callable[[], None]] = {
            # As killall does, but of this server's processes only
            "b": lambda: logrotate(server, "", f"kill -USR1 {' '.join(map(str, server.pids('all')))}"),
            "c": lambda: logrotate(server, "sharedscripts"),
            "d": lambda: logrotate(server, "copytruncate", "true"),
        }
        rotate = steps.get(letter, lambda: watched.rotate("arbiter"))
        if letter == "e":
            for _ in range(rotations):
                watched.restart_workers()
                with watched.load(number=CLIENTS, requests_each=1) as load:
                    wait_for_answers(load)
        else:
            with watched.load(*kinds, number=CLIENTS) as load:
                for _ in range(rotations):
                    rotate()
                    wait_for_answers(load)
        return {**watched.figures(), "rotations": rotations if letter in steps else len(watched.letting_go)}


def wait_for_answers(load: Load) -> None:
    with contextlib.suppress(Broken):  # The figures tell of it
        load.wait_for_answers(CLIENTS)


def processor_time(pids: Sequence[int]) -> float:
    """Seconds that these processes have had, with threads that have ended: clock_getcpuclockid(3)."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def shuffled(everything: List[T], rounds: int) -> Iterator[T]:
    """In another order in each round: to come after itself, with the processor's caches filled, is an advantage."""
    choose = random.Random(0)
    for _ in range(rounds):
        yield from choose.sample(everything, len(everything))


def reopening(subjects: Sequence[Subject], starts: int) -> Figures:
    """Microseconds of processor time that a rotation takes of each worker: medians of ten rounds, one of each start."""
    # In random order: started first, a server may take a tenth less than started last, for as long as it runs
    found: Dict[str, List[float]] = {}
    for start in range(starts):
        order = random.Random(start).sample(subjects, len(subjects))
        with contextlib.ExitStack() as stack:
            watched = [(one.name, Watched(stack.enter_context(one.server()), NAMES)) for one in order]
            figures: Dict[str, List[float]] = {}
            for name, one in shuffled(watched, 10):
                pids = one.server.workers()
                before = processor_time(pids)
                for _ in range(10):
                    one.server.logs.rotate()
                    one.server.signal("arbiter")
                    one.let_go(one.server.pids("all"), time.monotonic() + 1)
                    one.server.logs.discard()
                figures.setdefault(name, []).append((processor_time(pids) - before) / 10 / len(pids) * 1e6)
        for name, values in figures.items():
            found.setdefault(name, []).append(statistics.median(values))
    return {name: spread(values) for name, values in found.items()}


def costs(subjects: Sequence[Subject], rounds: int, seconds: float) -> Figures:
    """Requests a second and processor time of the workers per request, in shuffled rounds."""
    found: Dict[str, List[Tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        servers = [(one.name, stack.enter_context(one.server())) for one in subjects]
        # The first one twice: how much it differs from itself is the noise.
        servers.append(("itself", stack.enter_context(subjects[0].server())))
        for name, server in shuffled(servers, rounds):
            pids = server.workers()
            before, start = processor_time(pids), time.monotonic()
            with Load(server.socket, 4) as load:
                time.sleep(seconds)
            answered = max(len(load.requests), 1)
            took = time.monotonic() - start
            found.setdefault(name, []).append((answered / took, (processor_time(pids) - before) / answered))
    first = [cost for _, cost in found[subjects[0].name]]
    return {
        name: {
            "rate": spread([rate for rate, _ in pairs]),
            "cost": spread([cost * 1e6 for _, cost in pairs]),
            "ratio": spread([cost / base for (_, cost), base in zip(pairs, first)]),
        }
        for name, pairs in found.items()
    }


def letting_go(subjects: Sequence[Subject], workers: int, loaded: bool, rounds: int) -> Figures:
    """Milliseconds from the signal until no process has a rotated file open, in shuffled rounds."""
    found: Dict[str, List[float]] = {}
    with contextlib.ExitStack() as stack:
        watched = [(one.name, Watched(stack.enter_context(one.server(workers=workers)), NAMES)) for one in subjects]
        for name, one in shuffled(watched, rounds):
            pids, logs = one.server.pids("all"), one.server.logs
            with Load(one.server.socket, 8 if loaded else 0) as load:
                load.wait_for_answers(100 if loaded else 0)
                logs.rotate()
                start = time.monotonic()
                one.server.signal("arbiter")
                gone = one.let_go(pids, start + 1)
                found.setdefault(name, []).append(time.monotonic() - start if gone else float("inf"))
            logs.discard()
            one.server.signal("arbiter")
        # What looking costs
        start = time.monotonic()
        for _ in range(10):
            logs.held(pids, [])
        found["looking once"] = [(time.monotonic() - start) / 10]
    return {name: spread([1000 * one for one in seconds]) for name, seconds in found.items()}


def spread(values: Sequence[float]) -> Dict[str, float]:
    """Median and quartiles; what never came counts as more than all others."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {"median": statistics.median(ordered), "low": ordered[quarter], "high": ordered[-1 - quarter]}
