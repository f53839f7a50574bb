"""
What an application has and does while its logs are rotated, what becomes of that, and whether it is worse.

A Case is played on a published server, and then on a patched one. Each Play gives what was Found, and compare() raises
Broken if the patched server fared worse, but for what RULES leave out.
"""

import contextlib
import json
import os
import re
import signal
import time
import zlib
from collections import Counter
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from hypothesis import strategies as st

from properties import wait
from properties.clients import Client
from properties.environment import GTHREAD
from properties.expect import BREAKS, CHANGES, COMPLAINS, KILLS, LOSES, MISSES, Unanswered, expect
from properties.server import NOBODY, Server

#: Classes of served/handlers.py, of which a handler's own class is made.
OWN = (
    "Header", "Named", "Moded", "Assigned", "Lazy", "Compressed", "Flushing", "Footer", "Emitting", "Interrupted",
    "Equal", "Incomparable", "Locked", "Shared", "Streaming", "Ending", "Computed", "Elsewhere", "BeingMade", "Born",
)  # fmt: skip
#: Where an application has a handler: in its logger, in two ("loggers"), in the root's, there at a level that nothing
#: reaches ("unused"), behind a queue or a MemoryHandler, or in no logger: called by itself ("nowhere") or never.
PLACES = ("logger", "root", "queue", "memory", "nowhere", "loggers", "unused", "removed")
#: What served/habits.py knows.
INTERRUPTED = ("make_handlers", "make_handlers_of_a_class_with_a_stream", "deplete", "hold_first_line")
DOES = ("nothing", "hold_locks", "hold_locks_backwards", "starve", *INTERRUPTED)


OWN_NAME = "own-"  # So begin the names of files that a handler has chosen itself: nobody else rotates these


class Handler(NamedTuple):
    own: Tuple[str, ...] = ()
    base: str = "FileHandler"
    mode: str = "a"
    delay: bool = False
    encoding: Optional[str] = None
    place: str = "logger"

    @property
    def is_left(self) -> bool:
        """Whether a patch leaves it to published code: it has a class of its own, or its files begin with a mark."""
        return bool(self.own) or self.encoding in ("utf-16", "utf-8-sig")

    def log(self, number: int) -> str:
        prefix = OWN_NAME if {"Named", "Elsewhere"} & set(self.own) else ""
        return f"{prefix}drawn-{number}.log"

    def decode(self, data: bytes) -> str:
        if "Compressed" in self.own:
            data, left = b"", data
            while left:
                member = zlib.decompressobj(16 + zlib.MAX_WBITS)
                with contextlib.suppress(zlib.error):  # Somebody has written something else to it
                    data += member.decompress(left)
                left = member.unused_data
        return data.decode(self.encoding or "utf-8", "replace")


class Round(NamedTuple):
    """One rotation: the files are renamed, the application does something, and there is a signal."""

    does: str = "nothing"
    rotated: str = ""  # Which logs are rotated: a pattern for the beginning of their names
    how: str = "renamed"
    target: str = "arbiter"
    number: int = signal.SIGUSR1


OTHERS = "error|application"  # The logs that no drawn handler writes
HUP = Round(number=signal.SIGHUP)  # A reload
#: Workers are killed after OTHERS were rotated, or after all logs were: successors inherit these, or open them.
KILL = Round(rotated=OTHERS, number=signal.SIGKILL, target="workers")
TURNOVER = KILL._replace(rotated="")
PRELOAD = ("--preload",)
USER = ("--user", str(NOBODY))


class Case(NamedTuple):
    handlers: Tuple[Handler, ...] = ()
    rounds: Tuple[Round, ...] = (Round(),)
    options: Tuple[str, ...] = ()
    habit: str = "nothing"  # What it does while it loads
    on_usr1: str = ""
    folder: int = 0o755

    @property
    def user(self) -> bool:
        return self.options[:1] == USER[:1]

    def concerns(self, worker_class: str) -> bool:
        """Whether it can happen there: signals interrupt the main thread, and gthread's applications run in others."""
        interrupted = {round.does for round in self.rounds} & set(INTERRUPTED)
        return worker_class != GTHREAD or not (interrupted or self.has("Interrupted"))

    @property
    def starts_again(self) -> bool:
        return any(round.number != signal.SIGUSR1 for round in self.rounds)

    @property
    def removes_lines(self) -> bool:
        """Whether a file is deleted, or one of mode w emptied: by a worker that starts, or by published code."""
        opened = [handler for handler in self.handlers if self.starts_again or handler.is_left]
        return any(handler.mode == "w" for handler in opened) or self.rotates("deleted")

    def does(self, what: str) -> bool:
        return any(round.does == what for round in self.rounds)

    def rotates(self, how: str) -> bool:
        return any(round.how == how for round in self.rounds)

    def has(self, *own: str) -> bool:
        return any(set(own) & set(handler.own) for handler in self.handlers)

    @property
    def by_chance(self) -> bool:
        """Whether chance says how many signals come, and so how often a file is opened."""
        return self.has("Interrupted") or self.rotates("closed")

    @property
    def may_raise(self) -> bool:
        """Whether a handler that opens files itself fails, in what a signal interrupts or in a thread that logs."""
        opens = any(handler.is_left or handler.base == "WatchedFileHandler" for handler in self.handlers)
        # What two loggers have is opened twice, and the second time it is there
        twice = any(handler.place == "loggers" and handler.mode == "x" for handler in self.handlers)
        # Reopened, a Lazy one has no file until its emit() opens one: with Emitting's emit() in its place, nobody does
        without_file = any({"Lazy", "Emitting"} <= set(handler.own) for handler in self.handlers)
        return twice or without_file or (opens and self.rotates("closed"))

    @property
    def races_for_mode_x(self) -> bool:
        """Whether arbiter and worker race to create a file: who comes second ends, and the server with it."""
        return self.options == PRELOAD and any(handler.mode == "x" for handler in self.handlers)

    @property
    def variables(self) -> Dict[str, str]:
        handlers = json.dumps([handler._asdict() for handler in self.handlers])
        return {"HANDLERS": handlers, "HABIT": self.habit, "ON_USR1": self.on_usr1}


Lines = Dict[str, int]  # How many are wrong in a log, and how
Files = Dict[str, Tuple[str, int]]  # What is in them, and their mode
Held = Set[Tuple[bool, str]]  # Whether by the arbiter, and which log


class Found(NamedTuple):
    """What became of a server: how often what is bad, and by log its lines and files."""

    bad: Dict[str, float]
    lines: Dict[str, Lines]
    files: Dict[str, Files]
    held: List[Held]  # Of which logs rotated files are open after each round

    @property
    def has_died(self) -> bool:
        return bool(self.bad[DIED])

    def holds(self, log: str) -> bool:
        return any(name == log for held in self.held for _, name in held)

    @property
    def has_failed(self) -> bool:
        return bool(self.bad[BROKEN]) or self.has_died


handlers = st.builds(
    Handler,
    own=st.lists(st.sampled_from(OWN), max_size=2, unique=True).map(tuple),
    base=st.sampled_from(["FileHandler", "FileHandler", "WatchedFileHandler", "RotatingFileHandler"]),
    mode=st.sampled_from(["a", "a", "w", "x", "a+"]),
    delay=st.sampled_from([False, False, False, True]),
    encoding=st.sampled_from([None, "utf-8", "utf-16", "utf-8-sig", "latin-1"]),
    place=st.sampled_from(PLACES),
)
rounds = st.one_of(
    st.builds(
        Round,
        st.sampled_from(DOES),
        rotated=st.sampled_from(["", OTHERS]),
        how=st.sampled_from(["renamed", "renamed", "created", "read-only", "deleted", "closed"]),
        target=st.sampled_from(["arbiter", "workers"]),
        number=st.just(signal.SIGUSR1),
    ),
    st.sampled_from([HUP, KILL]),
)
cases = st.builds(
    Case,
    st.lists(handlers, min_size=1, max_size=4).map(tuple),
    st.lists(rounds, min_size=1, max_size=3).map(tuple),
    options=st.sampled_from([(), (), PRELOAD]),
    habit=st.just("nothing"),
    on_usr1=st.sampled_from(["", "", "", "note", "reset"]),
    folder=st.just(0o755),
).filter(
    # New workers can open their files, which are there
    lambda case: not case.starts_again or all(handler.mode != "x" for handler in case.handlers)
)

ORDERLY = (0, signal.SIGTERM, signal.SIGKILL)  # Only the test sends SIGKILL

#: What is counted of a server, and of a log: by these names, as a rule with a misspelt one would never hold.
DIED, ENDING, BROKEN = "processes that died", "processes that ended", "broken requests"
SLOW, LATE, IN_USE = "seconds for a request", "seconds until rotated files were let go", "rotated files in use"
TRACEBACKS, NOTED = "tracebacks", "signals to the application's own handler"
UNREADABLE = "files that their owner may not read or write"
LOST, DOUBLED, MISSED, ZEROS = "lines lost of", "lines doubled in", "lines not in the new", "NUL bytes in"
FILES = "files"

#: How much more is no worse: seconds on a busy machine, and the half of one in wait_until_let_go().
SLACK = {SLOW: 0.7, LATE: 0.7}
HARM = {
    BROKEN: BREAKS,
    SLOW: BREAKS,
    DIED: KILLS,
    ENDING: KILLS,
    TRACEBACKS: COMPLAINS,
    LATE: MISSES,
    IN_USE: MISSES,
}


class Play:
    def __init__(self, server: Server, case: Case, published: Optional[Found]) -> None:
        """published is what became of the published server: what that does not let go is not waited for long."""
        self.server, self.case, self.published = server, case, published
        self.slowest, self.letting_go = 0.0, 0.0
        self.told = 0  # Of how many rotations
        self.asked: Dict[str, int] = {}  # Each request, and of how many rotations the server had been told before
        self.broken: Set[str] = set()
        self.held: List[Held] = []

    def found(self) -> Found:
        self.ask()
        for round in self.case.rounds:
            self.play(round)
            self.ask()
        self.ask()  # What the first line after a signal does may show in the next one
        modes = [path.stat().st_mode & 0o600 for path in self.server.logs.directory.glob("*.log")]
        logs = {handler.log(n): handler for n, handler in enumerate(self.case.handlers)}
        files = {log: self.files(log, handler) for log, handler in logs.items()}
        lines = {log: self.judge(files[log], handler.place) for log, handler in logs.items()}
        for log in ("error.log", "application.log"):
            lines[log] = self.judge(self.files(log, Handler()))
        bad = {
            DIED: sum(status not in ORDERLY for status in self.server.exits().values()),
            ENDING: 0 if self.case.user else len(self.server.exits()),  # With --user some must end
            UNREADABLE: sum(mode != 0o600 for mode in modes),
            BROKEN: len(self.broken),
            SLOW: self.slowest,
            LATE: self.letting_go,
            TRACEBACKS: "\n".join([self.server.stderr(), *self.server.logs.lines("error.log")]).count("Traceback"),
            NOTED: self.server.times("noted"),
            IN_USE: len(self.held[-1]),
        }
        return Found(bad, lines, files, self.held)

    def ask(self, kind: str = "async") -> None:
        request, start = f"id-{len(self.asked) + 1}", time.monotonic()  # The same on both servers
        self.asked[request] = self.told
        try:
            with Client(self.server.socket, timeout=1 if self.broken else 10) as client:
                client.get(kind, request)
            if kind == "async":
                self.slowest = max(self.slowest, time.monotonic() - start)
        except Unanswered:
            self.broken.add(request)

    def play(self, round: Round) -> None:
        server, workers = self.server, self.server.workers()
        self.rotate(round)
        self.ask(round.does)
        if round.how == "closed":  # So that nothing can be opened at the first signal
            server.logs.directory.chmod(0o500)
            server.signal("workers")  # The arbiter would end, on both
            self.ask()
            server.logs.directory.chmod(0o755)
        server.signal(round.target, round.number)
        if round.number in (signal.SIGHUP, signal.SIGKILL):
            wait.until(lambda: not set(workers) & set(server.workers()), lambda: "workers were not replaced")
            server.wait_until_serving()
        # That nothing is held tells that the signal has come, unless the application has signalled itself before
        self.held.append(self.wait_until_let_go(round.target, least=0.5 if round.does in INTERRUPTED else 0))
        self.told = server.logs.rotations

    def rotate(self, round: Round) -> None:
        logs = self.server.logs
        if round.number == signal.SIGHUP:
            return
        names = [path.name for path in logs.directory.glob("*.log") if re.match(round.rotated, path.name)]
        names = [name for name in names if not name.startswith(OWN_NAME)]
        if round.how == "deleted":
            return logs.delete(names)
        logs.rotate(names, create=round.how == "created")
        for path in logs.directory.glob(f"*.{logs.rotations:06d}"):
            path.chmod(0o440 if round.how == "read-only" else 0o644)

    def wait_until_let_go(self, target: str, least: float) -> Held:
        """
        Which rotated files are still in use after half a second, on both servers: the next request comes as late.

        Two things are waited for longer, 5 s: on the patched server, what the published one let go of; on that one,
        the arbiter's error.log, as the arbiter passes the signal on to workers only when it has reopened it.
        """
        start = time.monotonic()
        this = len(self.held)  # Of the rounds
        while True:
            held = {
                (pid == self.server.arbiter, log)
                for pid, log in self.server.logs.held(self.server.reached_by(target), self.server.logs.rotated())
            }
            expected = held - self.published.held[this] if self.published else held & {(True, "error.log")}
            seconds = time.monotonic() - start
            if (not held and seconds > least) or seconds > (5 if expected else 0.5):
                self.letting_go = max(self.letting_go, seconds)
                return held
            time.sleep(0.005)

    def files(self, log: str, handler: Handler) -> Files:
        """What is in the files of a log, and their mode."""
        # As root the patched server keeps the mode of a file, and the published one does not.
        keep = 0 if os.geteuid() == 0 else 0o777
        return {
            path.name: (handler.decode(path.read_bytes()), path.stat().st_mode & keep)
            for path in self.server.logs.directory.glob(f"{log}*")
        }

    def judge(self, files: Files, place: str = "logger") -> Lines:
        """What is wrong with the lines in the files of a log."""
        expected = set() if place in ("unused", "removed") else set(self.asked) - self.broken
        found = {name: Counter(re.findall(r"\bid-\d+\b", text)) for name, (text, _) in files.items()}
        total = sum(found.values(), Counter())
        late = sum(
            bool(lines[request])
            for name, lines in found.items()
            for request, told in self.asked.items()
            if re.search(r"\.\d{6}$", name) and int(name[-6:]) <= told  # Rotated before, by its number
        )
        lost = sum(not total[request] for request in expected)
        return {
            LOST: lost,
            DOUBLED: sum(n > 1 for n in total.values()),
            MISSED: lost + late,
            ZEROS: sum(text.count("\0") for text, _ in files.values()),
        }


#: What is not compared, and when: there, a difference is not the patch's. First what is counted of a server, then the
#: lines of a log, then its files. A rule that is too wide hides faults: tests/unit/test_cases.py has the smallest case
#: of each, and what it must not leave out. Each was seen in a row of test_worse.py, or in a drawn case.
ENDS, OPENS, LINES = (DIED, ENDING, BROKEN), (LATE, IN_USE), (LOST, DOUBLED, MISSED, ZEROS)
RULES: Sequence[Tuple[Sequence[str], Callable[[Case, Found, str], object]]] = [
    # Which task, thread or process an error ended, and what died of that, differs from run to run
    (ENDS, lambda case, published, log: published.has_failed and (case.may_raise or case.races_for_mode_x)),
    # The application has made the signal fatal: chance says how many are there at that moment
    (ENDS, lambda case, published, log: published.has_died and case.on_usr1 == "reset"),
    # No thread can be started. A worker that died has a successor, which can; a patched one lives on, and cannot
    ([BROKEN], lambda case, published, log: published.has_died and case.does("starve")),
    # What broke or died early took no time, said nothing more, and wrote nothing more
    ([SLOW, TRACEBACKS, NOTED, *OPENS, FILES], lambda case, published, log: published.has_failed),
    # Chance says how many signals come, and so how many tracebacks, if any, and what is in which file
    ([NOTED, FILES], lambda case, published, log: case.by_chance),
    ([TRACEBACKS], lambda case, published, log: published.bad[TRACEBACKS] and case.by_chance),
    # Published code closes a file first, and needs no other descriptor. A patched server stays on the rotated file
    ([*OPENS, MISSED, FILES], lambda case, published, log: case.does("deplete")),
    # The successor opened these files anew: that may empty them, or write a mark or a header
    (LINES, lambda case, published, log: published.has_died and "drawn" in log),
    # A request broke: which task or thread the handler's error ended differs from run to run
    (LINES, lambda case, published, log: published.has_failed and "drawn" in log and case.may_raise),
    # The worker died, and its successor inherited the new files. The patched one ends gracefully, and writes till then
    (LINES, lambda case, published, log: published.has_died and case.user),
    # The case deletes or empties new files. What a published server, or its successor, writes to a rotated one survives
    ([LOST, MISSED], lambda case, published, log: case.removes_lines and (published.holds(log) or published.has_died)),
    # A header is written late. A worker that starts before then begins a file that is empty, with a mark of its own
    ([FILES], lambda case, published, log: case.starts_again and case.has("Header", "Computed")),
    # It did not reopen the log, or its lines are wrong: so its files are
    ([FILES], lambda case, published, log: published.holds(log) or any(published.lines[log].values())),
]


def is_comparable(what: str, case: Case, published: Found, log: str = "") -> bool:
    """Whether more of what is bad, in the lines of a log if it is that, is worse than the published server."""
    return not any(what in left_out and when(case, published, log) for left_out, when in RULES)


def compare(case: Case, ours: Found, published: Found) -> None:
    """Raises Broken if the patched server fares worse than the published one."""
    worse = {}
    for what, number in ours.bad.items():
        most = published.bad[what]
        if number > most + SLACK.get(what, 0) and is_comparable(what, case, published):
            worse[f"{number:.3g} {what}, where the published server has {most:.3g}"] = HARM.get(what, CHANGES)
    for log, lines in ours.lines.items():
        for what, number in lines.items():
            most = published.lines[log][what]
            # The lines of requests that broke there are not looked for there
            unexpected = published.bad[BROKEN] if what in (LOST, MISSED) else 0
            if number > most + unexpected and is_comparable(what, case, published, log):
                worse[f"{number} {what} {log}, where the published server has {most}"] = LOSES
    for log, files in ours.files.items():
        for name in sorted({*files, *published.files[log]}) if is_comparable(FILES, case, published, log) else ():
            one, other = (describe(found.files[log].get(name)) for found in (ours, published))
            if one != other:
                worse[f"{name} {one}, and {other} on the published server"] = CHANGES
    expect(not worse, lambda: "; ".join(worse), next(iter(worse.values()), CHANGES))


def describe(file: Optional[Tuple[str, int]]) -> str:
    return f"has mode {file[1]:o} and {file[0]!r}" if file else "is not there"
