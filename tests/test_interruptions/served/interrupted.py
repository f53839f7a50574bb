"""
Gunicorn's configuration and application: a worker sends SIGUSR1 to itself at the bytecode boundaries of its life.

How a signal comes exactly there, shots.py tells.

Python 3.7 or later, and nothing but the standard library: it runs in the target environment.
"""

import collections
import contextlib
import os
import re
import signal
import sys

import checkpoints
import configuration
import shots
from configuration import *  # noqa: F403
from gunicorn.arbiter import Arbiter

CALLS = int(os.environ.get("CALLS", 2))  # Calls of a function that are interrupted, in each phase of a worker's life
TERMINATED = int(os.environ.get("TERMINATED", 2))  # Which worker gets SIGTERM, and interrupts itself only then; 0: none

# Of FILE:FUNCTION. What runs between fork and exit where the signal matters; elsewhere one place is like another.
SCOPE = re.compile(
    r"/(asyncio|concurrent|gunicorn|logging)/"
    r"|/(application|contextlib|selectors|signal|threading|weakref|wsgi)[.]py:"
    r"|/uvicorn/(_compat|main|server|workers)[.]py:"
    r"|/uvicorn_worker/_workers[.]py:"
    r"|genericpath|posixpath"
)


class Interrupter:
    """
    Decides at which boundaries SIGUSR1 is sent; the logs are rotated right before it.

    The phases of a worker's life: boot, loaded, serving from its first request on, and closing from its last one on,
    or ending from SIGTERM on. Of age TERMINATED a worker is interrupted only while it is ending.
    """

    def __init__(self, worker):
        self.captured = (1, 2) if worker.cfg.capture_output else ()
        self.last_request = worker.cfg.max_requests
        with open("places", "a+") as places:
            places.seek(0)
            self.done = set(places.read().splitlines())  # By the workers before this one, too
        self.file = os.open("places", os.O_WRONLY | os.O_APPEND)
        self.requests = 0
        self.armed = worker.age != TERMINATED  # That one when it gets SIGTERM: see trace()
        self.enter("boot")

    def enter(self, phase):
        self.phase, self.calls = phase, collections.Counter()

    def may_interrupt(self):
        return self.armed and SCOPE is not None  # An interpreter that ends sets globals to None, and still calls this

    def trace(self, frame, event, argument, trace_boundaries=shots.trace_boundaries):
        """Called for each function that is entered: its boundaries are traced if they are in SCOPE, CALLS times."""
        # trace_boundaries is an argument because shots is None when the interpreter ends.
        code = frame.f_code
        if code.co_name in ("handle_exit", "handle_exit_signal") and self.phase != "ending":
            self.armed = True  # Not before: the signals would fill the pipe of asyncio, and it would miss SIGTERM
            self.enter("ending")
        if not self.may_interrupt() or not SCOPE.search("%s:%s" % (code.co_filename, code.co_name)):
            return None
        self.calls[code] += 1
        return trace_boundaries(frame) if self.calls[code] <= CALLS else None

    def choose(self, frame):
        """Called at each boundary that is traced: the signal to send there, or 0."""
        if not self.may_interrupt():
            return 0
        code, caller = frame.f_code, frame.f_code
        if "/logging/" in code.co_filename and frame.f_back:  # flush() in emit() is not flush() in close()
            caller = frame.f_back.f_code
        where = "%s %s:%d:%s:%d from %s:%d" % (
            self.phase, code.co_filename, code.co_firstlineno, code.co_name, frame.f_lasti,
            caller.co_filename, caller.co_firstlineno,
        )  # fmt: skip
        if where in self.done:
            return 0
        if has_handler() and shots.stale(*self.captured):
            return 0  # The last signal is not handled yet, or was lost: one more would hide that
        self.done.add(where)
        os.write(self.file, where.encode() + b"\n")
        quieten()
        # Without a handler, the worker looks later. By then others have made a new file, or nobody has: by turns
        shots.rotate(create=not has_handler() and len(self.done) % 2)
        return signal.SIGUSR1

    def request(self, request):
        self.requests += 1
        if self.requests == 1:
            self.enter("serving")
        if self.requests == self.last_request:
            self.enter("closing")


def quieten():
    """Nobody empties the loop's wakeup pipe while the loop closes: keep Python from warning that it is full."""
    wakeup = signal.set_wakeup_fd(-1)
    with contextlib.suppress(OSError):  # The loop is about to close, its pipe is already
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


def has_handler():
    """Whether a signal comes to a handler, and not to that of the arbiter, which swallows it."""
    handler = signal.getsignal(signal.SIGUSR1)
    return callable(handler) and not isinstance(getattr(handler, "__self__", None), Arbiter)


interrupter = None


def post_fork(server, worker):
    global interrupter
    configuration.post_fork(server, worker)
    checkpoints.note("started", os.getpid())  # Before all takes longer, as it is traced
    interrupter = Interrupter(worker)
    shots.choose = interrupter.choose
    sys.settrace(interrupter.trace)
    shots.trace_boundaries(sys._getframe(1))  # The arbiter's spawn_worker(): the worker's life ends in it


def post_worker_init(worker):
    import handlers  # As the application has by now

    handlers.record = interrupter.request
    interrupter.enter("loaded")


def child_exit(server, worker):
    """A rotation sends SIGUSR1 to the arbiter too: the next worker inherits the new files."""
    server.log.reopen_files()


def worker_exit(server, worker):
    armed, interrupter.armed = interrupter.armed, False  # No rotation comes between the look and its note
    checkpoints.note("exiting", os.getpid(), *shots.stale(*interrupter.captured))
    interrupter.armed = armed
