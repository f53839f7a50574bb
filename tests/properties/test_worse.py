"""What an application has and does while its logs are rotated: nothing of it makes a server worse than published."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Sequence, Tuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from properties.activities import BLOCKING, KINDS, doing
from properties.cases import HUP, KILL, OTHERS, PRELOAD, TURNOVER, USER, Case, Handler, Play, Round, cases, compare
from properties.environment import SYNC, Environment, inspect, is_own, is_wsgi
from properties.expect import BREAKS, KILLS, LOSES, Broken, Unanswered, expect
from properties.logs import NAMES
from properties.schedules import compress, targets
from properties.server import SERVED, Server, send

#: The releases of uvicorn whose workers ignore SIGUSR1 as published
IGNORING = ("0.13.0", "0.13.1", "0.13.2")

#: How often the published server plays a case, at most: if chance does harm to both, it does it in one of these plays.
PLAYS = 5

CONFIGURED = ("--log-config", str(SERVED / "logging.conf"), "--access-logfile", "-", "--error-logfile", "-")


def each(
    *owns: Tuple[str, ...], places: Tuple[str, ...] = ("logger", "root", "nowhere"), **what: Any
) -> Tuple[Handler, ...]:
    return tuple(Handler(own, place=place, **what) for own in owns for place in places)


#: What an earlier revision of the patches was worse in than the published servers.
ROWS: Dict[str, Case] = {
    "workers that may not enter the folder": Case((), (HUP,), USER, folder=0o750),
    "workers that may not create what logconfig names": Case((), (Round(), Round()), (*USER, *CONFIGURED)),
    "a thread that has a log's lock": Case((Handler(place="unused"),), (Round("hold_locks", OTHERS),)),
    "a handler that is being made": Case((), (Round("make_handlers"), Round())),
    "one while the application loads": Case((), (HUP,), habit="make_handlers"),
    "one whose class has a stream": Case((), (Round("make_handlers_of_a_class_with_a_stream"), Round())),
    "no thread can be started": Case(
        (Handler(delay=True),), (Round("starve"), Round("hold_first_line"), Round(how="closed"))
    ),
    "no descriptor left": Case((), (Round("deplete"), Round())),
    "mode w, another log rotated": Case(each((), mode="w"), (KILL, Round(rotated=OTHERS)), PRELOAD),
    "mode w, renamed without a signal": Case(each((), mode="w"), (TURNOVER, KILL), PRELOAD),
    "mode x": Case(each((), mode="x"), (Round(), Round(rotated=OTHERS), Round())),
    "mode x, beside an own close()": Case((Handler(mode="x"), Handler(("Footer",))), (Round(), Round())),
    "a byte order mark, and a reload": Case((Handler(encoding="utf-8-sig"),), (HUP,), PRELOAD),
    "an _open() that writes a header": Case(each(("Header",)), (Round(), Round(rotated=OTHERS))),
    "an _open() that makes a name": Case(each(("Named",)), (Round(), Round(rotated=OTHERS))),
    "an _open() with a mode of its own": Case(each(("Moded",)), (Round(), Round())),
    "an _open() that was assigned": Case(each(("Assigned",)), (Round(), Round())),
    "an _open() that was replaced for all": Case((Handler(),), (Round(), Round()), habit="replace_open"),
    "an own flush()": Case((Handler(("Flushing",)),), (Round(), KILL)),
    "an _open() that does not": Case(each(("Lazy",)), (Round(rotated=OTHERS), Round()), PRELOAD),
    "a rotated file made read-only": Case((Handler(),), (Round(how="read-only"), HUP, Round())),
    "a reload, and a handler of SIGUSR1": Case((), (HUP, Round()), on_usr1="note"),
    "a reload, and SIG_DFL": Case((), (HUP, HUP), on_usr1="reset"),
    "a deleted file that no logger has": Case((Handler(place="removed"), Handler()), (Round(how="deleted"), Round())),
    "own locks, preloaded": Case(each(("Locked",), ("Shared",)), (Round(), KILL, Round()), PRELOAD),
    "a signal in an own emit()": Case(each(("Interrupted",)), (Round(), Round(rotated=OTHERS))),
    "a stream that was given": Case(each(("Elsewhere",)), (Round(), Round(rotated=OTHERS))),
    "a stream with a close() of its own": Case((Handler(("Ending",)),), (Round(), Round())),
    "a stream that is computed": Case((Handler(("Computed",)),), (Round(), Round())),
    "no stream, and no signal": Case((Handler(("Streamless",)),), (KILL,)),
    "own streams": Case(each(("Streaming",), places=("root", "nowhere")), (Round(), KILL, Round()), PRELOAD),
    "own comparisons": Case(each(("Equal",), ("Incomparable",)), (Round(), Round())),
    "logconfig, and a reload": Case((), (Round(), HUP, Round()), CONFIGURED),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each row with a worker class that it concerns: by turns, or thoroughly with all of them."""
    if "row" not in metafunc.fixturenames:
        return
    environment = inspect(metafunc.config.getoption("--environment"))
    names = [names[0] for names in environment.modules] + environment.own_classes or [SYNC]
    rows = [(row, list(filter(case.concerns, names))) for row, case in ROWS.items()]
    if metafunc.config.getoption("--effort") != "thorough":
        rows = [(row, names[n % len(names) :][:1]) for n, (row, names) in enumerate(rows)]
    metafunc.parametrize("row,row_class", [(row, name) for row, names in rows for name in names])


def test_rows(environment: Environment, published: Dict[str, str], row_class: str, row: str) -> None:
    """No set-up of an application makes a rotation do more harm than in the published release."""
    fails = side_by_side(environment, published, row_class, ROWS[row])
    if fails:
        pytest.skip(f"the published server does not get through it: {fails}")


@settings(max_examples=200 if settings().max_examples > 100 else 2)
@given(case=cases)
def test_drawn(environment: Environment, published: Dict[str, str], one_worker_class: str, case: Case) -> None:
    """No combination of log handlers makes a rotation do more harm than in the published release."""
    # Where the signal kills a worker, chance says how often, and what its successors find.
    kills = case.on_usr1 == "reset" or case.has("BeingMade", "Born")
    assume(not (kills and environment.is_published(one_worker_class)))
    assume(not side_by_side(environment, published, one_worker_class, case))


def side_by_side(environment: Environment, published: Dict[str, str], worker_class: str, case: Case) -> str:
    """Play a case on both servers, and compare; why the published one does not get through it, if so."""
    if environment.versions.get("uvicorn") in IGNORING and not is_own(worker_class):
        pytest.skip("this uvicorn ignores the signal as published: it reopens nothing that could be compared")
    if case.user and os.geteuid() != 0:
        pytest.skip("only root can start Gunicorn with --user")

    def server(variables: Dict[str, str]) -> Server:
        made = Server(environment.python, worker_class, 1, case.options, {**case.variables, **variables})
        made.logs.directory.chmod(case.folder)
        if case.user:
            made.let_others_in()
        return made

    servers = server(published), server({})
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:  # To start is most of what it takes
        upstreams, ours = (pool.submit(stack.enter_context, one) for one in servers)
        try:
            found = Play(upstreams.result(), case, None).found()
        except Broken as error:
            return str(error)
        patched = Play(ours.result(), case, found).found()
    for _ in range(PLAYS - 1):
        with contextlib.suppress(Broken):
            compare(case, patched, found)
            return ""
        try:
            with server(published) as again:
                found = Play(again, case, None).found()
        except Broken as error:
            return str(error)
    compare(case, patched, found)
    return ""


Rotation = Tuple[bool, str]  # Whether there are new files at once, and who is told


@settings(max_examples=200 if settings().max_examples > 100 else 1)
@example(kinds=["reading", "sleeping", "executing", "fork"], rotations=[(False, "arbiter")])
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True),
    rotations=st.lists(st.tuples(st.booleans(), targets), min_size=1, max_size=3),
)
def test_never_worse(
    environment: Environment,
    published: Dict[str, str],
    one_worker_class: str,
    kinds: List[str],
    rotations: List[Rotation],
) -> None:
    """Whatever the application does, rotations do no more harm than in the published release."""
    workers = 1 + sum(kind in BLOCKING or is_wsgi(one_worker_class) for kind in kinds)
    found = []
    for variables in ({}, published):  # One after the other: they would compete for the processors
        with Server(environment.python, one_worker_class, workers, variables=variables) as server:
            found.append(figures(server, kinds, rotations))
    ours, pristine = found
    harms = {"requests broken": BREAKS, "processes killed": KILLS}
    for what, number in ours.items():
        most = pristine[what]
        expect(number <= most, f"{number:,} {what}, where the pristine release has {most:,}", harms.get(what, LOSES))


def figures(server: Server, kinds: Sequence[str], rotations: Sequence[Rotation]) -> Dict[str, int]:
    """What becomes of a server whose application does this, and whose logs are rotated like that."""
    answered: List[str] = []
    broken = 0
    with doing(server, kinds) as activities:
        children = [activity.pid for activity in activities.running if activity.kind == "fork"]
        for create, target in rotations:
            server.logs.rotate(create=create)
            server.signal(target)
            send(children, signal.SIGUSR1)  # What an application has forked nobody else signals
            compress(server, [*server.reached_by(target), *children])
            for _ in range(5):
                try:
                    answered.append(server.get())
                except Unanswered:
                    broken += 1
        outcome = activities.finish()
    with contextlib.suppress(Broken):  # It only waits for them
        server.logs.expect_exactly_once(answered)
    lines = [server.logs.requests(name)[request] for name in NAMES for request in answered]
    return {
        "lines lost": outcome.lost + lines.count(0),
        "lines doubled": outcome.doubled + sum(n > 1 for n in lines),
        "requests broken": outcome.broken + broken,
        "processes killed": outcome.killed
        + sum(status not in (0, signal.SIGKILL) for status in server.exits().values()),
    }
