"""
An application whose worker interrupts itself while it is loaded, on its main thread, wherever it can.

A sweep does one thing again and again, each time with signals at other bytecode boundaries, until there are none
left. A worker takes every PARTS-th of these, beginning with PART, and notes what it found wrong.

Python 3.8 or later, and nothing but the standard library: it runs in the target environment.
"""

import logging
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import traceback

import checkpoints
import shots
from gunicorn import glogging
from shots import rotate

PART, PARTS = int(os.environ["PART"]), int(os.environ["PARTS"])
BURST = 10000 if PARTS <= 10 else 1000
GAP, DEEPEST = 300, 20

plain = logging.getLogger("plain")
plain.propagate = False
plain.addHandler(logging.FileHandler("logs/plain.log"))
logging.root.addHandler(logging.FileHandler("logs/root.log"))

lines = 0


def log():
    global lines
    lines += 1
    plain.warning("line %d.", lines)


def times_logged(number):
    texts = [path.read_text() for path in pathlib.Path("logs").glob("plain.log*")]
    return "".join(texts).count("line %d." % number)


def signalled():
    signal.raise_signal(signal.SIGUSR1)


class Run:
    """
    One run of an action, with a signal after so many of its boundaries, the next one after so many more, and so on.

    Until a signal is handled nothing is traced: else the trace function would be interrupted, and not the action.
    """

    def __init__(self, action, gaps, number=signal.SIGUSR1, before=rotate):
        self.gaps, self.number, self.before = gaps, number, before
        self.places = []  # The function of each boundary
        self.depth = self.deepest = 0
        handle = signal.getsignal(number)
        signal.signal(number, lambda *arguments: self.handle(handle, *arguments))
        shots.choose = self.choose
        self.trace()
        self.raised = None
        try:
            action()
            bool()  # A call, after which Python looks for the last signal
        except Exception as error:
            self.raised = error
        finally:
            sys.settrace(None)
            signal.signal(number, handle)

    def trace(self):
        sys.settrace(lambda frame, event, argument: shots.trace_boundaries(frame))

    def choose(self, frame):
        self.places.append(frame.f_code.co_name)
        if not self.gaps:
            return 0
        if self.gaps[0]:
            self.gaps[0] -= 1
            return 0
        self.gaps.pop(0)
        self.before()
        sys.settrace(None)
        return self.number

    def handle(self, handle, number, frame):
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        self.trace()
        try:
            handle(number, frame)
        finally:
            self.depth -= 1


class Storm(Run):
    """A signal comes in each look, and another one right after it: in real time, looks are long and signals many."""

    def __init__(self, *arguments):
        self.looked = set()
        super().__init__(*arguments)

    def choose(self, frame):
        places = ("handle_usr1", "reopen_files") if self.depth in self.looked else ("reopen",)
        if frame.f_code.co_name not in places:
            return 0
        self.looked ^= {self.depth}
        return super().choose(frame)


def check(where, run, raises=None):
    """What is wrong after a run: with the rotation in it, what it raised or told, and with the rotation after it."""
    if run.gaps:
        return  # It has fewer boundaries
    found = [] if isinstance(run.raised, raises or type(None)) else ["raised %r" % run.raised]
    found += [] if raises is TimeoutError else ["not reopened: %s" % name for name in shots.stale(1, 2)]
    for handler in shots.log_files():
        while handler.lock._is_owned():  # Others have to wait for it
            handler.lock.release()
            found.append("left locked: %s" % handler.baseFilename)
    rotate()
    signalled()
    found += ["not reopened the next time: %s" % name for name in shots.stale(1, 2)]
    log()
    found += ["line %d is logged %d times" % (n, times_logged(n)) for n in (lines - 1, lines) if times_logged(n) != 1]
    for path in pathlib.Path("logs").glob("*.log.*"):
        if path.name.startswith("error.log"):
            found += [line for line in path.read_text().splitlines() if "[INFO]" not in line]
        path.unlink()  # Or it would be much
    for what in found:
        checkpoints.note("failed", sweep, where, what)


def part(action, parts=PARTS):
    """The boundaries of an action that are this worker's to take."""
    rotate()
    return range(PART, len(Run(action, []).places), parts)


def in_a_log_write():
    for n in part(log):
        check("boundary %d" % n, Run(log, [n]))


def in_a_first_line():
    """Its file is opened for it."""

    def first_line():
        plain.handlers[0].close()
        plain.handlers[0] = logging.FileHandler("logs/plain.log", delay=True)
        log()

    for n in part(first_line, min(PARTS, 10)):  # Or a sample would miss the few at which the file is not open
        run = Run(first_line, [n])
        deadline = time.monotonic() + 5  # A thread waits until it is written
        while shots.stale(1, 2) and time.monotonic() < deadline:
            time.sleep(0.001)
        check("boundary %d" % n, run)


def beside_a_thread():
    """Which writes to the file, and takes longer: nobody waits for it."""
    begun, ended = threading.Event(), threading.Event()

    def write():
        with plain.handlers[0].lock:
            begun.set()
            ended.wait(5)

    log()
    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    rotate()
    start = time.monotonic()
    run = Run(signalled, [])
    took = time.monotonic() - start
    ended.set()
    thread.join()
    check("%.3f s" % took, run)
    if took > 1:
        checkpoints.note("failed", sweep, "the handler took %.3f s" % took)


def in_the_handler():
    """Of a signal in the application, and in a log write."""
    for n in part(signalled):
        rotate()
        log()
        check("boundary %d" % n, Run(signalled, [n]))
    flush = [n for n, place in enumerate(Run(log, []).places) if place == "flush"]
    for n in part(signalled):
        m = flush[n % len(flush)]
        check("boundary %d of the write, then %d" % (m, n), Run(log, [m, n]))


def in_a_look():
    """That a worker takes as it starts: it does not undo what the handler does in it."""
    look = getattr(glogging, "reopen_plain", None) or signal.getsignal(signal.SIGUSR1).__self__._capture_usr1
    for n in part(look):
        rotate()
        check("boundary %d" % n, Run(look, [n]))


def burst():
    """Ten thousand, or a sample, some hundred boundaries from each other: microseconds. And a storm."""
    for run in Run(log, [GAP + PART] * BURST), Storm(signalled, [0] * 100):
        check("%d deep" % run.deepest, run)
        if run.gaps or run.deepest > DEEPEST:
            checkpoints.note("failed", sweep, "%d deep, %d signals left" % (run.deepest, len(run.gaps)))


def limit(number, frame):
    raise TimeoutError


def exception():
    """Of another signal's handler: it reaches the application, and leaves nothing behind."""
    signal.signal(signal.SIGALRM, limit)
    for n in part(signalled):
        log()
        rotate()
        check("boundary %d" % n, Run(signalled, [n], signal.SIGALRM, bool), TimeoutError)


def recursion():
    """The stack ends somewhere in the handler."""

    def deep(levels):
        deep(levels - 1) if levels else signalled()

    room = sys.getrecursionlimit() - len(list(traceback.walk_stack(sys._getframe())))
    for levels in range(room - 60, room):
        log()
        rotate()
        run = Run(lambda: None, [])
        try:
            deep(levels)
        except RecursionError:
            signalled()  # Published Gunicorn would be where it is now, too
        check("%d levels" % levels, run)


def fork():
    """Of another signal's handler: both processes honour the rotation, and the next one."""
    children = []
    signal.signal(signal.SIGALRM, lambda number, frame: children.append(os.fork()))
    for n in part(signalled):
        log()
        rotate()
        ours, theirs = socket.socketpair()
        children.clear()
        run = Run(signalled, [n], signal.SIGALRM, bool)
        if children == [0]:
            first = [repr(run.raised)] * bool(run.raised) + shots.stale(1, 2)
            theirs.send(b"x")
            theirs.recv(1)
            signalled()
            theirs.send(repr(first + shots.stale(1, 2)).encode())
            os._exit(0)
        if children:
            ours.recv(1)
        check("boundary %d" % n, run)
        if children:
            ours.send(b"x")
            said = ours.recv(1000).decode()
            os.wait()
            if said != "[]":
                checkpoints.note("failed", sweep, "boundary %d: in the child %s" % (n, said))


checkpoints.note("started", os.getpid())
for sweep in os.environ["SWEEPS"].split():
    globals()[sweep]()
    checkpoints.note("swept", sweep)
checkpoints.note("done")


def app(argument, *others):  # Without an argument uvicorn would take it for a factory
    raise NotImplementedError
