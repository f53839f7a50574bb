"""
What becomes of a server whose logs are rotated under load, in figures; of the properties' own harness.

figures.py VENV says what it is doing, a line each, and ends with the figures as JSON. Lines are counted in the files,
answers by the clients, and the processes are looked at from outside: nothing is taken from what the server says.
"""

import contextlib
import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

from properties import clients, wait
from properties.activities import ended
from properties.environment import Unusable, inspect
from properties.expect import Broken
from properties.logs import NAMES
from properties.server import Server

#: Seconds after which logrotate reads what it has renamed, to compress it, and removes it.
LOGROTATE = 0.25

#: Seconds after which nobody waits any more for what takes milliseconds.
PATIENCE = 1.0

#: Seconds after which a worker that has not started, or not ended, does hang.
HANGING = 10.0

CLIENTS = 8
LOGS = (*NAMES, "root.log")

#: Worker exits by themselves, and by the signal that tells them to; uvicorn raises that again.
ORDERLY = (0, signal.SIGTERM)


class Watched:
    def __init__(self, server: Server, names: Sequence[str] = LOGS, compressing: float = LOGROTATE) -> None:
        """compressing is how long those have that still write to a rotated file."""
        self.server = server
        self.names = names
        self.compressing = compressing
        self.answered: List[str] = []
        self.broken = 0
        self.letting_go: List[float] = []  # Seconds, for each rotation until all have; infinite if some have not
        self.holding = PATIENCE

    @contextlib.contextmanager
    def load(self, *kinds: str, number: int = CLIENTS, requests_each: int = 10**9) -> Iterator[clients.Load]:
        with clients.Load(self.server.socket, number, kinds or ("async",), requests_each) as load:
            yield load
        self.answered += load.requests
        self.broken += len(load.broken)

    def serve(self, seconds: float, *targets: str) -> None:
        """Answer requests for so long, and while the logs are rotated, each time with a signal to one of these."""
        with self.load():
            for target in targets:
                self.rotate(target)
            time.sleep(seconds)

    def rotate(self, target: str) -> None:
        """As logrotate does; the next rotation follows a little later."""
        pids = self.server.pids("all")
        self.server.logs.rotate(self.names)
        start = time.monotonic()
        self.server.signal(target)
        let_go = self.let_go(pids, start + min(self.compressing, self.holding))
        seconds = time.monotonic() - start
        time.sleep(max(0, LOGROTATE - seconds))
        self.server.logs.take()
        if not let_go:
            let_go = self.let_go(pids, start + self.holding)
            seconds = time.monotonic() - start
            self.holding = self.holding if let_go else LOGROTATE  # It will not do so the next time either
        self.letting_go.append(seconds if let_go else math.inf)

    def let_go(self, pids: List[int], end: float) -> bool:
        """Wait until none of these processes has a rotated file open; whether that is so in the end."""
        while self.server.logs.held(pids, self.server.logs.rotated()):
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def restart_workers(self) -> None:
        """Reload, and rotate as soon as there is a new worker, while nobody asks for anything."""
        before = self.server.workers()
        self.server.signal("arbiter", signal.SIGHUP)
        with contextlib.suppress(Broken):  # Those that are asked next say what has become of it
            wait.until(lambda: set(self.server.workers()) - set(before), lambda: "", HANGING)
            self.rotate("all")
            self.server.wait_until_serving(HANGING)

    def figures(self) -> Dict[str, Any]:
        """Tell the server to end, and count what has become of it."""
        workers = self.server.workers()
        self.server.signal("arbiter", signal.SIGTERM)
        with contextlib.suppress(Broken):
            wait.until(lambda: all(map(ended, workers)), lambda: "", HANGING)
        lines = {name: self.server.logs.requests(name) for name in self.names}
        numbers = {name: [lines[name][request] for request in self.answered] for name in self.names}
        slowest = max(self.letting_go, default=0.0)
        return {
            "lost": {name: sum(n == 0 for n in numbers[name]) for name in self.names},
            "doubled": sum(n > 1 for name in self.names for n in numbers[name]),
            "lines": len(self.names) * len(self.answered),
            "broken": self.broken,
            "requests": len(self.answered) + self.broken,
            "dead": sum(status not in ORDERLY for status in self.server.exits().values()),
            "hung": sum(not ended(pid) for pid in workers),
            "rotations": self.server.logs.rotations,
            "slowest": None if slowest == math.inf else slowest,  # JSON knows no infinity
        }


def measure(server: Server) -> Dict[str, Any]:
    # The second that the promise gives: what is lost by then is lost for good, on a busy machine too.
    watched = Watched(server, compressing=PATIENCE)
    steps: List[Callable[[], None]] = [
        *[lambda: watched.serve(0.1, "arbiter")] * 3,
        *[lambda: watched.serve(0.1, "all")] * 2,  # killall: the arbiter passes on what each has got already
        watched.restart_workers,
        lambda: watched.serve(0.4),
    ]
    for number, step in enumerate(steps):
        print(f"step {number + 1} of {len(steps)}, {len(watched.answered):,} requests answered")
        step()
    return {"worker_class": server.worker_class, **watched.figures()}


def main() -> int:
    clients.patience.seconds = PATIENCE
    try:
        print("starting a server")
        environment = inspect(Path(sys.argv[1]))
        [worker_class, *_] = environment.worker_classes or environment.own_classes
        variables = {"ROOT_LOG": "logs/root.log"}
        with Server(environment.python, worker_class, 2, ["--capture-output"], variables) as server:
            print(json.dumps(measure(server)))
    except (Broken, Unusable) as error:
        print(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
