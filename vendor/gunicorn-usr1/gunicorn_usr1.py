"""
Settings for Gunicorn with which log rotation by SIGUSR1 loses nothing, without a patch: `-c python:gunicorn_usr1`, or
`from gunicorn_usr1 import *` in a configuration file; where that has a post_fork, it calls this one first.

Each worker looks at its log files, on SIGUSR1 and as it starts, and puts the new one under the open stream of those
that were rotated. That closes and flushes nothing and waits for no lock, so it may happen at any moment.
"""

import _thread
import atexit
import contextlib
import functools
import io
import logging
import os
import signal
import threading
import traceback
from types import SimpleNamespace
from typing import Any, List, Set

from gunicorn import __version__, glogging

__all__ = ["post_fork"]
#: The names in Logger.reopen_files() of each Gunicorn that this knows
PUBLISHED = """FileHandler _open acquire capture_output cfg close dup2 errorlog fileno flush handlers isinstance lock
    logfile loggers logging open os release stderr stdout stream sys"""
ARBITER = os.geteuid()
RLOCK = _thread.RLock  # As it was before gevent, say, took its place
inherited: Set[str] = set()  # The log files that it has opened
note = SimpleNamespace(looks=0, looking=False)  # How many were asked for, and whether one may be under way


def is_plain(handler: Any) -> bool:
    """Whether nothing but the logging module writes to a log file, closes and opens it."""
    raw = getattr(getattr(getattr(handler, "stream", None), "buffer", None), "raw", None)
    if not isinstance(raw, io.FileIO) or not isinstance(handler, logging.FileHandler):
        return False
    own, plain = type(handler), logging.FileHandler
    lock: Any = type(getattr(handler, "lock", None))
    methods = own.emit is plain.emit and own.close is plain.close and own._open is plain._open
    # The arbiter empties a file of mode "w"
    known = raw.name == getattr(handler, "baseFilename", None) and "w" not in handler.mode
    return methods and known and (lock is RLOCK or lock is type(threading.RLock()))


def reopen(handler: Any) -> None:
    """Exchange a log file if it was rotated: close and flush no stream, and wait for no lock."""
    old, lock = handler.stream, handler.lock
    try:
        if not old or old.closed or os.path.samestat(os.fstat(old.fileno()), os.stat(handler.baseFilename)):
            return
    except FileNotFoundError:
        pass
    owned = lock._is_owned()
    try:
        if "".encode(old.encoding) or not (owned or lock.acquire(blocking=False)):
            handler.stream = handler._open()  # With a byte order mark; or a thread writes to the old one, and closes it
        elif handler.stream is old:
            # "w" would empty what another process writes to by now, and "x" would refuse it
            with io.FileIO(handler.baseFilename, "a+" if "+" in handler.mode else "a") as new:
                os.dup2(new.fileno(), old.fileno(), inheritable=False)
    finally:
        if not owned:
            try:  # noqa: SIM105  # Nothing may come before it
                lock.release()
            except RuntimeError:
                pass  # Another thread has it, or a fork has made it anew


def reopen_captured(log: Any, signalled: bool) -> None:
    """The same for what is printed, if it goes to the error log."""
    if getattr(log, "logfile", None) and log.cfg.capture_output and log.cfg.errorlog != "-":
        path = log.cfg.errorlog
        if signalled or not os.path.exists(path) or not os.path.samestat(os.fstat(1), os.stat(path)):
            with open(path, "a+") as new:
                for fd in (1, 2, log.logfile.fileno()):
                    os.dup2(new.fileno(), fd, inheritable=fd < 3)


def look(log: Any, signalled: bool) -> List[Any]:
    """Reopen captured output and plain log files, if they were rotated; get the other handlers of loggers."""
    logs = list(logging.root.manager.loggerDict.values())  # No getLogger(): a signal may have interrupted it
    named = {id(h): h for one in logs for h in getattr(one, "handlers", ())}
    known = {id(log): log, **{id(h): h for h in logging.root.handlers}, **named}
    hidden = {id(h): h for h in [reference() for reference in list(vars(logging)["_handlerList"])]}  # By a queue, say
    late, own = [], []
    for key, h in {**known, **hidden}.items():
        try:
            if h is log:
                reopen_captured(log, signalled)
            elif is_plain(h):
                # Not a deleted file, unless a logger has it; and what /dev/stdout is by now is a matter of signals
                is_there = key in known or h.stream.closed or os.fstat(h.stream.fileno()).st_nlink
                if is_there and (signalled or not os.path.islink(h.baseFilename)):
                    reopen(h)
            elif getattr(h, "stream", 0) is None and getattr(getattr(h, "lock", None), "_is_owned", bool)():
                late.append(h)  # A signal has interrupted its first line
            elif key in named and isinstance(h, logging.FileHandler):
                own.append(h)
        except OSError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if error.filename is None and frame.f_globals.get("__name__") not in (__name__, "logging"):
                raise  # Of another signal's handler: a time limit, say
            late += [h] if h is not log else []
    if late and signalled:
        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(retry, (log, late))
    return own


def retry(log: Any, handlers: List[Any]) -> None:
    """In a thread, as it waits for writes that a signal may have interrupted."""
    for handler in handlers:
        try:
            with handler.lock:
                if is_plain(handler):
                    reopen(handler)
        except OSError as error:
            log.error("Failed to reopen a log file: %s", error)
            if handler.baseFilename == os.path.abspath(log.cfg.errorlog):
                os.write(2, b"Failed to reopen a log file: %a\n" % str(error))
            if isinstance(error, PermissionError) and handler.baseFilename in inherited and os.geteuid() != ARBITER:
                os.kill(os.getpid(), signal.SIGTERM)  # The next worker inherits the new file


def reopen_files(log: Any, signalled: bool = True) -> None:
    """In the place of Logger.reopen_files(), also where a logger class of one's own calls that."""
    note.looks, number, own = note.looks + 1, 0, []
    if note.looking and sum(frame.f_code is reopen_files.__code__ for frame, _ in traceback.walk_stack(None)) > 10:
        return  # It may interrupt itself, but in a burst of signals not without end
    note.looking = True
    while number != note.looks:  # Again if it has interrupted itself, and may have put an older file back
        number = note.looks
        own = look(log, signalled)
    note.looking = False
    for handler in own if signalled else []:  # Of these nothing is known, but what Gunicorn does
        handler.acquire()
        try:
            if handler.stream:
                handler.close()
                handler.stream = handler._open()
        finally:
            handler.release()


def post_fork(server: Any, worker: Any) -> None:
    """Gunicorn's hook. What it changes, it changes in this worker process alone."""
    if hasattr(glogging, "reopen"):  # Gunicorn's patch does all this, or this was called before
        return
    if sorted(glogging.Logger.reopen_files.__code__.co_names) != PUBLISHED.split():
        if worker.age == 1:
            worker.log.error("gunicorn_usr1 does nothing: how Gunicorn %s reopens log files is new to it", __version__)
        return
    glogging.reopen = reopen  # uvicorn's patch then leaves it to Gunicorn
    glogging.Logger.reopen_files = reopen_files
    logs = [logging.root, *logging.root.manager.loggerDict.values()]
    inherited.update(getattr(h, "baseFilename", "") for log in logs for h in getattr(log, "handlers", ()))
    worker.SIGNALS = [number for number in worker.SIGNALS if number != signal.SIGUSR1]  # No init_signals() resets it
    atexit.register(signal.signal, signal.SIGUSR1, signal.SIG_IGN)  # The interpreter resets handlers on exit

    def take(run: Any = None) -> None:
        if not run or isinstance(signal.getsignal(signal.SIGUSR1), signal.Handlers):  # Not the application's own
            signal.signal(signal.SIGUSR1, worker.handle_usr1)
            signal.siginterrupt(signal.SIGUSR1, False)
        reopen_files(worker.log, signalled=False)
        if run:
            run()

    take()
    worker.run = functools.partial(take, worker.run)  # Once more when the application is loaded
