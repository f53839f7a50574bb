"""What is measured of a subject; each returns plain figures, for JSON."""

import contextlib
import gzip
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import psutil
from environments import NEWEST
from properties import clients, wait
from properties.clients import Load
from properties.figures import Watched
from test_reopen.logrotation import Logrotate
from usr1 import patches

from bench.subjects import Served, Subject

ROOT = Path(__file__).resolve().parents[2]
Figures = Dict[str, Any]

CLIENTS = 16

#: How logs are rotated or written, by the letter that docs/benchmarks.md explains.
SCHEDULES = ("a", "b", "c", "d", "e", "f", "g root", "g queue")


class Rotated(Watched):
    """Logs rotated by real logrotate, too."""

    def __init__(self, server: Any, names: Sequence[str]) -> None:
        super().__init__(server, names, patience=10)
        self.runs = 0
        self.compressed: Dict[str, Counter[str]] = {name: Counter() for name in names}

    def logrotate(self, directives: str, postrotate: str = "") -> None:
        directory = self.server.directory
        killall = directory / "killall"  # Of this server's processes only
        killall.write_text(f"#!/bin/sh\nkill -USR1 {' '.join(map(str, self.server.pids('all')))}\n")
        killall.chmod(0o755)
        (directory / "pidfile").write_text(f"{self.server.arbiter}\n")
        reopen = ["-t", 2, directory / "pidfile"]
        path = f"{directory}:{os.environ['PATH']}:/usr/sbin:/sbin"
        # It fails where reopen.sh says that a log is not let go of, and keeps that.
        Logrotate(self.server.logs, reopen, postrotate, directives).run(["env", f"PATH={path}"])
        self.runs += 1
        for name, found in self.compressed.items():  # Or logrotate renames more and more of them
            for rotated in self.server.logs.directory.glob(f"{name}-*.gz"):
                text = gzip.decompress(rotated.read_bytes()).decode(errors="replace")
                found.update(re.findall(r"\bid-\d+\b", text))
                rotated.unlink()

    def requests(self, name: str) -> "Counter[str]":
        return super().requests(name) + self.compressed[name]


def losses(subject: Subject, schedule: str, rotations: int) -> Figures:
    """What becomes of lines, requests and workers in so many rotations under load."""
    clients.patience.seconds = 3.0
    letter, _, by = schedule.partition(" ")
    kinds = ["async"] * 300 + ["late"] if letter == "f" else ["async"]
    with subject.server("--capture-output", variables={"LOGGED_BY": by or "named"}) as server:
        watched = Rotated(server, subject.logs)
        steps: Dict[str, Callable[[], None]] = {
            "b": lambda: watched.logrotate("", "killall -s USR1 gunicorn"),
            "c": lambda: watched.logrotate("sharedscripts"),
            "d": lambda: watched.logrotate("copytruncate", "true"),
        }
        rotate = steps.get(letter, lambda: watched.rotate("arbiter"))
        if letter == "e":
            for _ in range(rotations):
                watched.restart_workers()
                with watched.load(number=CLIENTS, requests_each=1):
                    time.sleep(0.2)
        else:
            with watched.load(*kinds, number=CLIENTS, requests_each=10**9 if subject.keeps_alive else 1):
                for _ in range(rotations):
                    rotate()
                    time.sleep(0.02)
        return {**watched.figures(), "rotations": max(watched.runs, len(watched.letting_go))}


def processor_time(pids: Sequence[int]) -> float:
    """Seconds that these processes have had, with threads that have ended: clock_getcpuclockid(3)."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def reopening(subjects: Sequence[Subject], rounds: int) -> Figures:
    """Microseconds of processor time that a rotation takes of each worker, in alternating rounds of ten."""
    found: Dict[str, List[float]] = {}
    with contextlib.ExitStack() as stack:
        watched = [(one.name, Watched(stack.enter_context(one.server()), one.logs)) for one in subjects]  # type: ignore[arg-type]
        for number in range(rounds):
            for name, one in watched if number % 2 else watched[::-1]:
                pids = one.server.workers()
                before = processor_time(pids)
                for _ in range(10):
                    one.server.logs.rotate(one.names)
                    one.server.signal("arbiter")
                    one.let_go(one.server.pids("all"), time.monotonic() + 1)
                    one.server.logs.discard(one.server.logs.rotated())
                found.setdefault(name, []).append((processor_time(pids) - before) / 10 / len(pids) * 1e6)
    return {name: spread(values) for name, values in found.items()}


def costs(subjects: Sequence[Subject], rounds: int, seconds: float) -> Figures:
    """Requests a second and processor time of the workers per request, in alternating rounds."""
    found: Dict[str, List[Tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        # The first one twice: how much it differs from itself is the noise.
        servers: List[Tuple[str, Subject, Any]] = [
            (name, subject, stack.enter_context(subject.server()))
            for name, subject in [("itself", subjects[0]), *((one.name, one) for one in subjects)]
        ]
        for number in range(rounds):
            for name, subject, server in servers if number % 2 else servers[::-1]:
                pids = server.workers()
                before, start = processor_time(pids), time.monotonic()
                with Load(server.socket, 4, requests_each=10**9 if subject.keeps_alive else 1) as load:
                    time.sleep(seconds)
                answered = max(len(load.answered), 1)
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
    """Milliseconds from the signal until no process has a rotated file open, in alternating rounds."""
    found: Dict[str, List[float]] = {}
    with contextlib.ExitStack() as stack:
        watched = [
            (one.name, one, Watched(stack.enter_context(one.server(workers=workers)), one.logs))  # type: ignore[arg-type]
            for one in subjects
        ]
        for number in range(rounds):
            for name, subject, one in watched if number % 2 else watched[::-1]:
                with _busy(one.server, subject) if loaded else contextlib.nullcontext() as load:
                    if load:
                        load.wait_for_answers(100)
                    pids, logs = one.server.pids("all"), one.server.logs
                    logs.rotate([path.name for path in logs.directory.glob("*.log")])
                    start = time.monotonic()
                    one.server.signal("arbiter")
                    gone = one.let_go(pids, start + 1)
                    found.setdefault(name, []).append(time.monotonic() - start if gone else float("inf"))
                logs.discard(logs.rotated())
                one.server.signal("arbiter")
        # What looking costs
        start = time.monotonic()
        for _ in range(10):
            watched[0][2].server.logs.held(watched[0][2].server.pids("all"), [])
        found["looking once"] = [(time.monotonic() - start) / 10]
    return {name: spread([1000 * one for one in seconds]) for name, seconds in found.items()}


def _busy(server: Served, subject: Subject) -> Load:
    return Load(server.socket, 8, requests_each=10**9 if subject.keeps_alive else 1)


PARTS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


#: Not in this process, where the clients would wait for what it does; and it starts no others, for which they would.
ROTATING = """
import os, signal, sys, time
arbiter, *logs = sys.argv[1:]
while True:
    for log in filter(os.path.exists, logs):
        os.replace(log, log + ".1")
    os.kill(int(arbiter), signal.SIGUSR1)
    time.sleep(0.3)
"""


@contextlib.contextmanager
def rotating(server: Served, logs: Sequence[str]) -> Iterator[psutil.Popen]:
    """A process that does so while it is resumed."""
    command = [sys.executable, "-c", ROTATING, str(server.arbiter), *logs]
    with psutil.Popen(command, cwd=server.logs.directory) as process:
        try:
            wait.until(server.logs.rotated, lambda: "nothing was rotated")
            process.suspend()
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def resumed(process: psutil.Popen) -> Iterator[None]:
    process.resume()
    yield
    process.suspend()


def latencies(subject: Subject, rounds: int, seconds: float) -> Figures:
    """Milliseconds of requests, in alternating rounds without rotations and with one every 0.3 s."""
    found: Dict[str, List[Dict[str, float]]] = {"without": [], "with": []}
    with subject.server() as server, rotating(server, subject.logs) as process:
        for number in range(2 * rounds):
            load = Load(server.socket, 4, requests_each=10**9 if subject.keeps_alive else 1)
            with load, resumed(process) if number % 2 else contextlib.nullcontext():
                time.sleep(seconds)
            times = sorted(load.seconds)
            found["with" if number % 2 else "without"].append(
                {name: 1000 * times[int(len(times) * part)] for name, part in PARTS.items()}
            )
    figures = {
        f"{name} {how}": spread([one[name] for one in found[how]]) for name in PARTS for how in ("without", "with")
    }
    ratios = [one["p99"] / other["p99"] for one, other in zip(found["with"], found["without"])]
    return {**figures, "p99 ratio": spread(ratios)}


def spread(values: Sequence[float]) -> Dict[str, float]:
    """Median, quartiles and number; what never came counts as more than all others."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {
        "median": statistics.median(ordered),
        "low": ordered[quarter],
        "high": ordered[-1 - quarter],
        "max": ordered[-1],
        "number": len(ordered),
    }


def patching(subject: Subject, rounds: int) -> Figures:
    """Seconds and megabytes of apply.sh --no-tests and patch -p1, in alternating rounds."""
    with tempfile.TemporaryDirectory(prefix="usr1-bench-") as name:
        venv = Path(name) / "venv"
        shutil.copytree(subject.environment().path, venv, symlinks=True)
        [site] = venv.glob("lib/python3.*/site-packages")
        newest = patches.find("uvicorn", NEWEST)
        assert newest is not None
        apply = [str(ROOT / "scripts" / "apply.sh"), "--only", "uvicorn", str(venv)]
        patch = ["patch", "-p1", "-s", "-d", str(site), "-i", str(newest.path)]
        commands = {  # And what undoes them
            "scripts/apply.sh --no-tests": ([*apply, "--no-tests"], [*apply, "--revert"]),
            "patch -p1": ([*patch, "--fuzz=0"], [*patch, "-R"]),
        }
        found: Dict[str, List[Tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, (command, undo) in commands.items():
                found[name].append(_timed(command))
                _timed(undo)
    return {
        name: {"seconds": spread([one for one, _ in pairs]), "MB": spread([one for _, one in pairs])}
        for name, pairs in found.items()
    }


def _timed(command: List[str]) -> Tuple[float, float]:
    """Seconds, and megabytes at the most, of a command."""
    # GNU time, as a process starts with the peak of the one that has forked it
    command = ["/usr/bin/time", "--format", "%M", "--output", "/dev/stderr", *command]
    start = time.monotonic()
    answer = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - start
    if answer.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {answer.returncode}: {answer.stderr}")
    return seconds, int(answer.stderr.split()[-1]) / 1024
