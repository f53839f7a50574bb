"""What an application does for as long as a test wants it to, logging numbered lines all the while."""

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Iterator, List, NamedTuple, Sequence

from properties import wait
from properties.clients import Client, new_request
from properties.expect import BREAKS, KILLS, LOSES, Unanswered, count, expect
from properties.server import Hold, Server

#: These block the event loop of their worker: in C, and in Python with and without letting other threads run.
BLOCKING = ("reading", "sleeping", "spinning")
#: In the order in which they begin. Before Python 3.7, what is forked while a thread logs never gets that log's lock.
KINDS = ("fork", *BLOCKING, "executing")


class Outcome(NamedTuple):
    lost: int = 0
    doubled: int = 0
    lines: int = 0
    broken: int = 0
    killed: int = 0  # Processes that the application has forked, before their time

    def expect_lossless(self, when: str) -> None:
        expect(not self.killed, "SIGUSR1 ended a process that the application forked", KILLS)
        expect(not self.broken, f"{count(self.broken, 'request')} broken {when}", BREAKS)
        expect(not self.lost, f"{self.lost:,} of {count(self.lines, 'line')} lost {when}", LOSES)
        expect(not self.doubled, f"{self.doubled:,} of {count(self.lines, 'line')} doubled {when}", LOSES)


class Activity:
    """One of them, in the process that `pid` names."""

    def __init__(self, server: Server, kind: str, client: Client, hold: Hold, request: str) -> None:
        self.server, self.kind, self.client, self.hold, self.request = server, kind, client, hold, request
        client.send(kind, request)
        self.pid = hold.reached()

    def outcome(self) -> Outcome:
        """Wait until it is at its end, and look for its lines."""
        try:
            lines = int(self.client.answer())
        except Unanswered:
            return Outcome(broken=1)
        if self.kind == "fork":  # Its parent has answered
            late = f"a process that the application forked did not end within {wait.PATIENCE:g} s"
            wait.until(lambda: ended(self.pid), lambda: late)
            logged = {int(words[1]): int(words[2]) for words in self.server.events() if words[0] == "logged"}
            if self.pid not in logged:
                return Outcome(killed=1)
            lines = logged[self.pid]
        logs = [self.found(name) for name in ("application.log", "error.log")]
        lost = sum(found[number] == 0 for found in logs for number in range(1, lines + 1))
        doubled = sum(n > 1 for found in logs for n in found.values())
        return Outcome(lost, doubled, lines * len(logs))

    def found(self, log: str) -> "Counter[int]":
        """How often each of its lines, by number, is in a log."""
        line = re.compile(rf"{self.request} line (\d+) of process {self.pid}$")
        return Counter(int(match[1]) for match in map(line.search, self.server.logs.lines(log)) if match)


class Activities(NamedTuple):
    running: List[Activity]

    def finish(self) -> Outcome:
        """Let them end, and look for their lines."""
        for activity in self.running:
            activity.hold.release()
            if activity.kind == "reading":
                # For reading too, as that does not wait for the other end
                with open(activity.server.fifo, "r+b", buffering=0) as fifo:
                    fifo.write(b"x")
        return Outcome(*map(sum, zip(*(activity.outcome() for activity in self.running))))


@contextlib.contextmanager
def doing(server: Server, kinds: Sequence[str]) -> Iterator[Activities]:
    """Some of these kinds at a time; those that block have a worker each, and there must be one more for the others."""
    with contextlib.ExitStack() as stack:
        running = []
        for kind in sorted(kinds, key=KINDS.index):  # A blocked worker takes no more requests: the others do.
            request = new_request()
            client = stack.enter_context(Client(server.socket))
            hold = stack.enter_context(server.hold(request))
            running.append(Activity(server, kind, client, hold, request))
        yield Activities(running)


def ended(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
