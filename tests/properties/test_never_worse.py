"""Whatever an application does, and whenever its logs are rotated: nothing is worse than on the pristine release."""

import contextlib
import signal
from typing import Dict, List, NamedTuple, Tuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from properties.activities import BLOCKING, KINDS, Activities, Outcome
from properties.clients import Load
from properties.expect import BREAKS, KILLS, LOSES, count, expect
from properties.pristine import is_pristine, named, pristine
from properties.schedules import compress
from properties.server import Server, send
from properties.target import Target


class Application(NamedTuple):
    kinds: Tuple[str, ...]  # What it does, see activities.py
    resets: bool = False  # SIGUSR1 to SIG_DFL, while it loads
    mode: str = "a"  # Of its own log
    boots: str = ""  # Where its workers are held while the first rotation goes on, if they are

    @property
    def workers(self) -> int:
        return sum(kind in BLOCKING for kind in self.kinds) + 1

    def variables(self) -> Dict[str, str]:
        return {"ON_USR1": "reset" if self.resets else "", "APPLICATION_LOG_MODE": self.mode}


class Rotation(NamedTuple):
    create: bool
    target: str


def rotations(*targets: str) -> st.SearchStrategy[List[Rotation]]:
    return st.lists(st.builds(Rotation, st.booleans(), st.sampled_from(targets)), min_size=1, max_size=3)


kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True).map(tuple)
seldom = st.sampled_from([False, False, True])
applications = st.builds(Application, kinds, seldom, st.just("a"), st.sampled_from(["", "", "post_fork", "load"]))
schedules = st.one_of(
    st.tuples(applications, rotations("arbiter", "workers", "all")),
    # Mode "w": how many lines are lost is chance where several processes open the same file, or one does twice.
    st.tuples(st.just(Application(("executing",), mode="w")), rotations("arbiter", "workers")),
)


class Found(NamedTuple):
    """What became of a server."""

    activities: Outcome
    lost: int
    doubled: int
    requests: int
    broken: int
    dead: int

    @property
    def figures(self) -> List[Tuple[int, str, str]]:
        lines, requests = count(self.activities.lines + self.requests * 3, "line"), count(self.requests, "request")
        return [
            (self.activities.lost + self.lost, f"of {lines} lost", LOSES),
            (self.activities.doubled + self.doubled, f"of {lines} doubled", LOSES),
            (self.activities.broken + self.broken, f"of {requests} broken", BREAKS),
            (self.dead, "workers killed", KILLS),
        ]


class Trial:
    """One of the two servers, while the same is done to both."""

    def __init__(self, server: Server, application: Application) -> None:
        self.server, self.application = server, application
        self.stack = contextlib.ExitStack()

    def boot(self) -> None:
        """Workers that boot, held at some place."""
        self.hold = self.stack.enter_context(self.server.hold(self.application.boots))
        self.server.signal("workers", signal.SIGKILL)
        self.hold.reached()

    def serve(self) -> None:
        if self.application.boots:
            self.hold.release()
            self.server.wait_until_serving()
        self.activities = self.stack.enter_context(Activities(self.server, self.application.kinds))
        self.load = self.stack.enter_context(Load(self.server.socket, 2))

    def rotate(self, rotation: Rotation) -> None:
        self.server.logs.rotate(create=rotation.create)
        self.server.signal(rotation.target)
        if hasattr(self, "activities"):
            # What an application has forked nobody else signals
            send([one.pid for one in self.activities.running if one.kind == "fork"], signal.SIGUSR1)

    def end(self) -> Found:
        activities = self.activities.finish()
        self.stack.close()
        load = self.load
        logs = [self.server.logs.requests(name) for name in ("access.log", "error.log", "application.log")]
        numbers = [log[request] for log in logs for request in load.requests]
        lost, doubled = sum(n == 0 for n in numbers), sum(n > 1 for n in numbers)
        dead = sum(status not in (0, signal.SIGKILL) for status in self.server.exits().values())
        return Found(activities, lost, doubled, len(numbers) // 3 + len(load.broken), len(load.broken), dead)


def compare(ours: Server, upstreams: Server, application: Application, rotations: List[Rotation]) -> None:
    """Do the same to both servers, side by side, and look whether one of them fares worse."""
    trials = [Trial(server, application) for server in (ours, upstreams)]
    with trials[0].stack, trials[1].stack:
        if application.boots:
            for trial in trials:
                trial.boot()
            rotate(trials, rotations[0])
        for trial in trials:
            trial.serve()
        for rotation in rotations:
            rotate(trials, rotation)
        found, pristine = (trial.end() for trial in trials)
    for (worse, what, harm), (number, _, _) in zip(found.figures, pristine.figures):
        expect(worse <= number, f"{worse:,} {what}, where the pristine release has {number:,}", harm)


def rotate(trials: List[Trial], rotation: Rotation) -> None:
    for trial in trials:
        trial.rotate(rotation)
    compress([trial.server for trial in trials], told=rotation.target != "workers")


#: Each takes a second or two.
examples = settings(max_examples={3: 1, 15: 3}.get(settings().max_examples, 200))


@examples
@example(schedule=(Application(("reading", "sleeping", "executing", "fork")), [Rotation(False, "arbiter")]))
@given(schedule=schedules)
def test_never_worse(target: Target, one_worker_class: str, schedule: Tuple[Application, List[Rotation]]) -> None:
    """Whatever the application does meanwhile, rotations lose, double, break and kill no more than without patch."""
    if is_pristine(target, one_worker_class):
        pytest.skip("the worker class is as published: there is nothing to compare it with")
    application, rotations = schedule
    variables, modules = application.variables(), pristine(target, one_worker_class)
    ours = Server(target.python, one_worker_class, application.workers, variables=variables)
    upstreams = Server(
        target.python, named(one_worker_class), application.workers, variables=variables, modules=modules
    )
    with ours, upstreams:
        compare(ours, upstreams, application, rotations)
