"""What Hypothesis draws: who is told, how often, how files are rotated, what is asked meanwhile."""

import contextlib
import time
from typing import List, NamedTuple, Sequence, Tuple, Union

from hypothesis import settings
from hypothesis import strategies as st

from properties import wait
from properties.clients import Load
from properties.expect import Broken
from properties.logs import NAMES
from properties.server import Server

#: Seconds from the signal until logrotate reads what it has renamed, to compress it, and removes it: those that the
#: promise gives, as a busy machine may let a process wait for more than the quarter of one that logrotate takes.
LOGROTATE = 1.0


def compress(server: Server, pids: Sequence[int]) -> None:
    """
    Read and remove the rotated files as logrotate would, or as soon as none of these processes has one open.

    If the arbiter is one of them, the time begins when it passes that on: on a busy machine that may take as long.
    """
    server.wait_until_reopened({server.arbiter}.intersection(pids))
    with contextlib.suppress(Broken):  # Who has not let go by now writes to files that are gone
        wait.until(lambda: not server.logs.held(pids, server.logs.rotated()), lambda: "", LOGROTATE)
    server.logs.take()


class Rotate(NamedTuple):
    names: Tuple[str, ...]
    create: bool

    def run(self, server: Server, load: Load) -> None:
        server.logs.rotate(self.names, self.create)


class Signal(NamedTuple):
    target: str
    times: int

    def run(self, server: Server, load: Load) -> None:
        server.signal(self.target, times=self.times)


class Answers(NamedTuple):
    number: int

    def run(self, server: Server, load: Load) -> None:
        load.wait_for_answers(self.number)


#: For properties whose examples take half a second or more each.
few = settings(max_examples=settings().max_examples // 3)

Step = Union[Rotate, Signal, Answers]

targets = st.sampled_from(["arbiter", "workers", "all"])
bursts = st.one_of(st.just(1), st.integers(2, 30))
names = st.sets(st.sampled_from(NAMES), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
kinds = st.lists(st.sampled_from(["async", "thread", "stream"]), min_size=1, max_size=3, unique=True)
steps = st.one_of(
    st.builds(Rotate, names, st.booleans()),
    st.builds(Signal, st.one_of(targets, st.just("worker")), bursts),
    st.builds(Answers, st.integers(1, 20)),
)
schedules: st.SearchStrategy[List[Step]] = st.lists(steps, min_size=4, max_size=16)


def play(schedule: List[Step], server: Server, clients: int, kinds: List[str]) -> Load:
    """What clients asked meanwhile; each of them was answered after the last step, too."""
    with Load(server.socket, clients, kinds) as load:
        for step in schedule:
            step.run(server, load)
        load.wait_for_answers(clients)
    return load


def storm(server: Server, load: Load, rotations: int) -> None:
    """Rotations in quick succession, so that signals come in the middle of whatever the workers do."""
    for _ in range(rotations):
        server.logs.rotate()
        server.signal("arbiter")
        time.sleep(0.002)
    load.wait_for_answers(1)
