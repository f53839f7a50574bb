"""Settings for Gunicorn with which log rotation by SIGUSR1 loses nothing: `-c python:gunicorn_usr1`, and no patch."""

import atexit
import contextlib
import fcntl
import io
import logging
import os
import signal
import stat
import sys
import traceback
from types import SimpleNamespace
from typing import Any

from gunicorn import __version__, glogging

published = glogging.Logger.reopen_files
NAMES = """FileHandler _open acquire capture_output cfg close dup2 errorlog fileno flush handlers isinstance lock
    logfile loggers logging open os release stderr stdout stream sys"""  # In that of each Gunicorn that this knows
note = SimpleNamespace(asked=0, looking=False, arbiter=os.geteuid(), inherited=set())  # Number of looks asked for


def is_plain(handler: Any) -> bool:
    """Whether only the logging module flushes, closes and opens a log file. Any emit() may write to it."""
    try:
        stream = handler.__dict__["stream"]
        raw = stream.buffer.raw if type(stream) is io.TextIOWrapper else None
        if type(raw) is not io.FileIO or raw.name != handler.baseFilename or not hasattr(handler.lock, "_is_owned"):
            return False
        known = handler._open.__globals__ is handler.close.__globals__ is handler.flush.__globals__ is vars(logging)
        # Only one process may open a file of mode x, and one of another encoding may begin with a mark
        return known and handler.mode in ("a", "a+", "w", "w+") and "a".encode(stream.encoding) == b"a"
    except (AttributeError, KeyError):
        return False


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
        if not (owned or lock.acquire(blocking=False)):
            handler.stream = handler._open()  # A thread writes to the old one, and closes it
        elif handler.stream is old:
            # "w" would empty what another process writes to by now, and "x" would refuse it
            with io.FileIO(handler.baseFilename, "a+" if "+" in str(handler.mode) else "a") as new:
                os.dup2(new.fileno(), old.fileno(), inheritable=False)
    finally:
        if not owned:
            try:  # noqa: SIM105  # Nothing may come before it
                lock.release()
            except RuntimeError:
                pass  # Another thread has it, or a fork has made it anew


def is_file(path: str) -> bool:
    """Whether there is a file or nothing, not a link. os.path.islink() would swallow a time limit."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def is_deleted(handler: Any) -> bool:
    """Whether a log file was deleted, and not renamed before, as rotated ones are: proc(5) has its last name."""
    fd = handler.stream.fileno()
    removed, link = not os.fstat(fd).st_nlink, f"/proc/self/fd/{fd}"
    try:
        last = os.path.basename(os.readlink(link))
    except OSError as error:
        if error.filename != link:
            raise  # Of another signal's handler
        return removed  # There is no such link here
    own = os.path.basename(os.fsdecode(handler.baseFilename)) + " (deleted)"
    return last == own or (removed and not is_file(handler.baseFilename))


def look(log: Any, signalled: bool) -> None:
    """Reopen captured output, and log files that were rotated. No getLogger(): a signal may have interrupted it."""
    logs = [one for one in list(logging.root.manager.loggerDict.values()) if isinstance(one, logging.Logger)]
    named = {id(h): h for one in logs for h in one.handlers}
    known = {id(h): h for h in [log, *logging.root.handlers, *named.values()]}
    others = {id(h): h for h in [reference() for reference in list(vars(logging)["_handlerList"])]}  # By a queue, say
    note.inherited = note.inherited or set(known)
    for key, h in {**known, **others}.items():
        try:
            if h is log and getattr(log, "logfile", None) and log.cfg.capture_output and log.cfg.errorlog != "-":
                for stream in (sys.stdout, sys.stderr) if signalled else ():
                    with contextlib.suppress(RuntimeError):  # Of a write that this interrupts
                        stream.flush()
                with open(log.cfg.errorlog, "a+") as new:
                    for fd in (1, 2, log.logfile.fileno()):
                        os.dup2(new.fileno(), fd, inheritable=fd < 3)
            elif is_plain(h) and not h.stream.closed and (key in known or not is_deleted(h)):
                # No deleted file, unless a logger has it; and what /dev/stdout is by now is a matter of signals
                if signalled or is_file(h.baseFilename):
                    reopen(h)
                if "w" in h.mode:  # The arbiter empties it
                    fcntl.fcntl(h.stream, fcntl.F_SETFL, os.O_APPEND)
        except (AttributeError, OSError, ValueError) as error:  # Another thread may just close it
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_globals.get("__name__") not in (__name__, "logging"):
                raise  # Of another signal's handler: a time limit, say
            if signalled:
                os.write(2, b"Failed to reopen a log file: %a\n" % str(error))
                if isinstance(error, PermissionError) and key in note.inherited and os.geteuid() != note.arbiter:
                    os.kill(os.getpid(), signal.SIGTERM)  # The next worker inherits the new file
    if signalled and any(isinstance(h, logging.FileHandler) and h.stream and not is_plain(h) for h in named.values()):
        published(log)  # All that is known of these is what Gunicorn does


def reopen_files(log: Any, signalled: bool = True) -> None:
    """In the place of Logger.reopen_files(), also where a logger class of one's own calls that."""
    note.asked += 1
    number, seen, frame = note.asked, 0, sys._getframe(1) if note.looking else None
    while frame and frame.f_code is not reopen_files.__code__:
        frame = frame.f_back
    while seen != note.asked and not frame:  # If this interrupts itself, the outer one goes round again
        seen, note.looking = note.asked, True
        look(log, signalled or seen > number)
        note.looking = seen != note.asked


def post_fork(server: Any, worker: Any) -> None:
    """Gunicorn's hook. What it changes, it changes in this worker process alone."""
    if sorted(getattr(getattr(glogging.Logger.reopen_files, "__code__", None), "co_names", ())) != NAMES.split():
        if worker.age == 1 and not hasattr(glogging, "reopen"):  # Gunicorn's patch does all this, or this did it before
            worker.log.error("gunicorn_usr1 does nothing: how Gunicorn %s reopens log files is new to it", __version__)
        return
    glogging.reopen = reopen  # uvicorn's patch then leaves it to Gunicorn
    glogging.Logger.reopen_files = reopen_files
    atexit.register(signal.signal, signal.SIGUSR1, signal.SIG_IGN)  # The interpreter resets handlers on exit

    def init_signals(published: Any = worker.init_signals) -> None:
        worker.SIGNALS = type(worker.SIGNALS)(s for s in worker.SIGNALS if s != signal.SIGUSR1)  # Or it resets that
        published()

    def run(published: Any = worker.run) -> None:
        if isinstance(signal.getsignal(signal.SIGUSR1), signal.Handlers):  # Ignored or reset, not the application's own
            signal.signal(signal.SIGUSR1, worker.handle_usr1)
            signal.siginterrupt(signal.SIGUSR1, False)
        reopen_files(worker.log, signalled=False)  # Once more when the application is loaded
        published()

    worker.init_signals, worker.run = init_signals, run
    signal.signal(signal.SIGUSR1, lambda *_: worker.log.reopen_files())  # For gevent's handle_usr1() it is too early
    signal.siginterrupt(signal.SIGUSR1, False)
    reopen_files(worker.log, signalled=False)
