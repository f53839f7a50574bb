"""Whatever an application does, and whenever its logs are rotated: nothing is worse than on the pristine release."""

import contextlib
import signal
from typing import Dict, List, NamedTuple, Sequence, Tuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from properties.activities import BLOCKING, KINDS, Activities, Outcome
from properties.environment import Environment, is_wsgi
from properties.expect import BREAKS, KILLS, LOSES, Broken, Unanswered, count, expect
from properties.logs import NAMES
from properties.schedules import compress
from properties.server import Server, send


class Application(NamedTuple):
    kinds: Tuple[str, ...]  # What it does, see activities.py
    resets: bool = False  # SIGUSR1 to SIG_DFL, while it loads
    mode: str = "a"  # Of its own log
    boots: str = ""  # Where its workers are held while the first rotation goes on, if they are

    def workers(self, worker_class: str) -> int:
        """One for each thing that it does, if that keeps a worker from anything else, and one more."""
        return sum(kind in BLOCKING or is_wsgi(worker_class) for kind in self.kinds) + 1

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
        lines = count(self.activities.lines + (self.requests - self.broken) * len(NAMES), "line")
        requests = count(self.requests, "request")
        return [
            (self.activities.lost + self.lost, f"of {lines} lost", LOSES),
            (self.activities.doubled + self.doubled, f"of {lines} doubled", LOSES),
            (self.activities.broken + self.broken, f"of {requests} broken", BREAKS),
            (self.dead + self.activities.killed, "processes killed", KILLS),
        ]


def rotate(server: Server, rotation: Rotation, children: Sequence[int] = ()) -> None:
    server.logs.rotate(create=rotation.create)
    server.signal(rotation.target)
    send(children, signal.SIGUSR1)  # What an application has forked nobody else signals
    compress(server, told=rotation.target != "workers")


def boot(server: Server, place: str, rotation: Rotation) -> None:
    """Let workers boot, with a rotation while they are at some place."""
    with server.booting(place):
        rotate(server, rotation)
    server.wait_until_serving()


def try_it(server: Server, application: Application, rotations: Sequence[Rotation]) -> Found:
    """What becomes of a server whose application does this, and whose logs are rotated like that."""
    answered: List[str] = []
    broken = 0
    if application.boots:
        boot(server, application.boots, rotations[0])
    with Activities(server, application.kinds) as activities:
        children = [activity.pid for activity in activities.running if activity.kind == "fork"]
        for rotation in rotations:
            rotate(server, rotation, children)
            for _ in range(5):
                try:
                    answered.append(server.get())
                except Unanswered:
                    broken += 1
        outcome = activities.finish()
    with contextlib.suppress(Broken):  # It only waits for them
        server.logs.expect_exactly_once(answered)
    lines = [server.logs.requests(name)[request] for name in NAMES for request in answered]
    lost, doubled = sum(n == 0 for n in lines), sum(n > 1 for n in lines)
    dead = sum(status not in (0, signal.SIGKILL) for status in server.exits().values())
    return Found(outcome, lost, doubled, len(answered) + broken, broken, dead)


def compare(ours: Server, upstreams: Server, application: Application, rotations: Sequence[Rotation]) -> None:
    """Do the same to both servers, and look whether one of them fares worse."""
    found = []
    for server in (ours, upstreams):  # One after the other: they would compete for the processors
        with server:
            found.append(try_it(server, application, rotations))
    for (worse, what, harm), (number, _, _) in zip(found[0].figures, found[1].figures):
        expect(worse <= number, f"{worse:,} {what}, where the pristine release has {number:,}", harm)


#: Each takes a second or two.
examples = settings(max_examples=200 if settings().max_examples > 100 else 1)


@examples
@example(schedule=(Application(("reading", "sleeping", "executing", "fork")), [Rotation(False, "arbiter")]))
@given(schedule=schedules)
def test_never_worse(
    environment: Environment,
    published: Dict[str, str],
    one_worker_class: str,
    schedule: Tuple[Application, List[Rotation]],
) -> None:
    """Whatever the application does, rotations do no more harm than in the published release."""
    application, rotations = schedule
    variables, workers = application.variables(), application.workers(one_worker_class)
    ours = Server(environment.python, one_worker_class, workers, variables=variables)
    upstreams = Server(environment.python, one_worker_class, workers, variables={**variables, **published})
    compare(ours, upstreams, application, rotations)
