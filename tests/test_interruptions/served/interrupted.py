"""
Gunicorn's configuration file for the interruption tests: application, hooks and tracer.

It runs inside the target environment, Python 3.7 or later. The worker sends SIGUSR1 to itself at
bytecode boundaries. The trace function is raise(3) itself, called through ctypes: no bytecode runs
between the signal and the traced instruction, so a signal before the call of write() or flush()
is handled where a real one is, inside the call. A trace function written in Python would handle
the signal itself, before the instruction, and never see a reentrant write.
"""

import collections
import contextlib
import ctypes
import importlib
import json
import logging
import os
import re
import select
import signal
import socket
import sys
import time

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

SHOTS = os.environ["USR1_SHOTS"]  # See run.Run
STORM = SHOTS == "storm"
PHASES = os.environ["USR1_PHASES"].split()
LOGS = ("access.log", "error.log", "app.log")
GONE = os.path.abspath("gone.log")

accesslog, errorlog = LOGS[:2]
control_socket_disable = True

# Here, so that no worker spends its boot on them
importlib.import_module("uvicorn.protocols.http.auto")
importlib.import_module("uvicorn.protocols.websockets.auto")

SCOPE = re.compile(os.environ["USR1_SCOPE"])  # The functions that are interrupted, as FILE:NAME
CALLS = 2  # of a function that are interrupted in a storm; tracing more takes seconds
BURST = 10000  # signals, while the handler waits for its thread


class Interrupter:
    """Decides at which boundaries SIGUSR1 is sent; the logs are rotated right before it."""

    def __init__(self):
        self.to_be_ended = False  # By a SIGTERM that is still to come, in a storm
        self.fired = 0
        self.rotations = 0
        self.done = set() if STORM else set(_read("done").splitlines())  # By the workers before this one
        self.file = os.open("done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.due = False  # Whether there was no signal yet in this call
        self.handlers = 0  # Calls since then
        self.last = None  # Where the last signal was sent
        self.interrupted = None
        self.outer = None  # Where the signal was sent whose handler is to be interrupted
        self.sender = _Sender() if SHOTS == "burst" else None

        self.enter("boot")

    def enter(self, phase):
        if self.sender and phase == "closing":
            self.sender.finish()  # One that comes just as the worker gives SIGUSR1 up has Python complain
        self.phase = phase
        self.arm(True)
        self.seen = set()
        self.calls = collections.Counter()

    def arm(self, whether):
        self.armed = whether and self.phase in PHASES

    def trace_call(self, frame, event, arg):
        code = frame.f_code
        if not self.armed:
            return None
        if code.co_name == "handle_usr1" and SHOTS in ("nested", "burst"):
            self.handlers += 1
            frame.f_back.f_trace_lines = True
            frame.f_trace_opcodes = SHOTS == "nested"
            return raise_at_boundary
        if SCOPE is None or not SCOPE.search(f"{code.co_filename}:{code.co_name}"):
            return None
        self.calls[code] += 1
        if STORM and self.calls[code] > CALLS:
            return None
        self.due = True
        frame.f_trace_opcodes = True
        return raise_at_boundary

    def signal_for(self, frame):
        """SIGUSR1, or 0 (no signal)."""
        if not self.armed or sys is None or sys.is_finalizing():  # The modules needed here are being taken apart
            return NO_SIGNAL
        choose = {"nested": self.is_nested, "burst": self.begins_burst}.get(SHOTS, self.is_new)
        if not choose(frame):
            return NO_SIGNAL
        self.armed = SHOTS != "one"
        self.rotate()
        return SIGUSR1

    def is_new(self, frame):
        """Whether this is a boundary that had no signal yet."""
        code = frame.f_code
        # One by one, flush() in emit() is not flush() in close(); telling all apart takes too long
        apart = not STORM and "/logging/" in code.co_filename and frame.f_back
        caller = frame.f_back.f_code if apart else code
        boundary = (code, frame.f_lasti, caller)
        if boundary in self.seen or not STORM and not self.is_honoured():
            return False
        self.seen.add(boundary)
        where = (
            f"{self.phase} {code.co_filename}:{code.co_firstlineno}:{code.co_name}:{frame.f_lasti}"
            f" from {caller.co_filename}:{caller.co_firstlineno}"
        )
        if where in self.done:
            return False
        if not self.quieten() and self.to_be_ended:
            self.seen.discard(boundary)
            return False
        self.note(where)
        return True

    def is_nested(self, frame):
        """
        Whether to send one signal for each call in scope, or a second one while the first is being handled.

        That is at each boundary of the handler, and the same again where the first is sent elsewhere.
        """
        code = frame.f_code
        if code.co_name != "handle_usr1":
            # Two have returned, the inner one without waiting for its thread
            if self.handlers == 2 and code.co_name == self.interrupted == "app":
                report(stale=stale_in_the_end(), after=self.last)
            self.handlers = 0
            if self.due and self.is_honoured():
                self.due, self.outer = False, code.co_name
                self.interrupted = code.co_name
                self.quieten()
                leave_alone(frame)
                return True
            return False
        where = f"{self.phase} {code.co_name}:{frame.f_lasti} in {self.outer}"
        if not self.outer or where in self.done:
            return False
        self.outer = None
        self.done.add(where)
        self.note(where)
        leave_alone(frame)
        return True

    def begins_burst(self, frame):
        """Whether to send one, and have many follow; the handler itself is left to them."""
        if frame.f_code.co_name == "handle_usr1" or not self.due or not self.is_honoured():
            return False
        self.due = False
        self.quieten()
        self.note(f"{self.phase} {frame.f_code.co_name}")
        self.sender.send()
        return True

    def note(self, where):
        self.last = where
        os.write(self.file, where.encode() + b"\n")
        self.fired += 1

    def is_honoured(self):
        """Whether the files are reopened already: so no signal hides that the one before is lost."""
        handler = signal.getsignal(signal.SIGUSR1)
        return not isinstance(getattr(handler, "__self__", None), Worker) or not stale()

    def quieten(self):
        """
        Of a storm that fills the event loop's wakeup pipe Python would warn on stderr, each time.

        Returns whether there is room in it. Nothing else tells asyncio of SIGTERM: while the pipe
        is away that has to wait, and what finds it full is lost.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        wakeup = signal.set_wakeup_fd(-1)
        try:
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
            return wakeup == -1 or bool(select.select([], [wakeup], [], 0)[1])
        except OSError:  # The loop is about to close, its pipe is already
            return True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def rotate(self):
        handler = signal.getsignal(signal.SIGUSR1)
        swallowed = self.phase == "boot" and not isinstance(getattr(handler, "__self__", None), Worker)
        # Whoever is not told until later finds a new file there, or none
        create = swallowed and len(self.done) % 2 == 1
        for name in LOGS:
            try:
                os.rename(name, f"{name}.{os.getpid()}.{self.rotations}")
            except FileNotFoundError:
                continue
            if create:
                open(name, "x").close()
        self.rotations += 1


def leave_alone(frame):
    """Or the handler would interrupt not the frame but what is called at its next boundary, and not be traced."""
    frame.f_trace_opcodes = frame.f_trace_lines = False


class _Sender:
    """A process of its own, which sends a burst of signals to this one when it is told to."""

    def __init__(self):
        worker = os.getpid()
        self.bursts = 0
        self.socket, other = socket.socketpair()
        if os.fork():
            other.close()
            return
        self.socket.close()
        try:
            while other.recv(1):
                for _ in range(BURST):
                    os.kill(worker, signal.SIGUSR1)
                other.send(b"x")
        finally:
            os._exit(0)

    def send(self):
        self.bursts += 1
        self.socket.send(b"x")

    def finish(self):
        """Wait until all that was asked for is sent."""
        while self.bursts:
            self.bursts -= len(self.socket.recv(self.bursts))


class Boundary:
    @staticmethod
    def from_param(frame):
        return interrupter.signal_for(frame) if interrupter else None


class Ignored:
    @staticmethod
    def from_param(event_or_argument):
        return NO_SIGNAL


NO_SIGNAL, SIGUSR1 = ctypes.c_int(0), ctypes.c_int(signal.SIGUSR1)
raise_at_boundary = getattr(ctypes.PyDLL(None), "raise")
raise_at_boundary.argtypes = (Boundary, Ignored, Ignored)
raise_at_boundary.restype = None

interrupter = None


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def report(**what):
    line = json.dumps(what) + "\n"
    file = os.open("reports", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def stale():
    """The log files that this process writes to although they were renamed."""
    found = []
    if interrupter.captures_output:
        found += [f"file descriptor {fd}" for fd in (1, 2) if not _is_open_as(fd, errorlog)]
    for logger in list(logging.root.manager.loggerDict.values()):  # As getLogger() would interrupt a getLogger()
        for handler in getattr(logger, "handlers", ()):
            is_kept = isinstance(handler, logging.FileHandler) and handler.baseFilename != GONE
            if is_kept and not _is_open_as(handler.stream, handler.baseFilename):
                found.append(handler.baseFilename)
    return found


def stale_for_the_next_line():
    """Those that what is logged now would go to: it waits for a thread that is just about to open a file."""
    with contextlib.ExitStack() as stack:
        for logger in list(logging.root.manager.loggerDict.values()):
            for handler in getattr(logger, "handlers", ()):
                stack.enter_context(handler.lock)
        return stale()


def _is_open_as(file, path):
    try:
        return os.path.samefile(file if isinstance(file, int) else file.fileno(), path)
    except (AttributeError, OSError, ValueError):  # The one is not there yet, or the other is just being closed
        return False


def stale_in_the_end():
    """Those that a thread does not reopen either, given some seconds of time."""
    deadline = time.monotonic() + 5
    while True:
        found = stale_for_the_next_line()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.001)


def inherited():
    """The signals that the arbiter's handlers would still take, and swallow."""
    handlers = {number: signal.getsignal(number) for number in Worker.SIGNALS}
    return [number for number, handler in handlers.items() if isinstance(getattr(handler, "__self__", None), Arbiter)]


def on_starting(server):
    """The arbiter keeps the exit status of a worker to itself: note it down."""
    waitpid = os.waitpid

    def noting(pid, options):
        pid, status = waitpid(pid, options)
        if pid:
            report(exited=pid, status=status)
        return pid, status

    os.waitpid = noting


def post_fork(server, worker):
    global interrupter
    interrupter = Interrupter()
    importlib.import_module("final")
    interrupter.captures_output = worker.cfg.capture_output
    interrupter.to_be_ended = STORM and worker.age > 1
    interrupter.arm(not interrupter.to_be_ended)  # This one is for another way out
    if SHOTS == "nested":
        sys.setswitchinterval(1)  # A thread begins when it is waited for
    sys.settrace(interrupter.trace_call)
    frame = sys._getframe(1)  # The arbiter's spawn_worker(): the worker's life ends in it
    frame.f_trace_opcodes = True
    frame.f_trace = raise_at_boundary


def child_exit(server, worker):
    """A rotation sends SIGUSR1 to the arbiter too: the next worker inherits the new files."""
    server.log.reopen_files()


def worker_exit(server, worker):
    armed, interrupter.armed = interrupter.armed, False
    report(exiting=os.getpid(), fired=interrupter.fired, stale=stale_in_the_end())
    interrupter.armed = armed
