"""
The application of the scenarios: each runs in a worker, on its main thread, and says what is wrong.

Python 3.7 or later, and nothing but the standard library: it runs in the target environment.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import threading
import time

from settings import Counting

LOGS = ("access.log", "error.log", "app.log")
PATIENCE = 5.0  # seconds, for what takes milliseconds


class Elsewhere(logging.FileHandler):
    """Writes to another file than the one that it is named after."""

    def _open(self):
        return open("elsewhere.log", "a")


class Slow(logging.FileHandler):
    """Its file is far away."""

    def _open(self):
        time.sleep(0.02)
        return super()._open()


class Interrupted(logging.FileHandler):
    """When it is due, its file is rotated once more while it is opened."""

    due = False

    def _open(self):
        stream = super()._open()
        if self.due:
            self.due = False
            rotate(["interrupted.log"])
            os.kill(os.getpid(), signal.SIGUSR1)
        return stream


def logger(name, handler):
    made = logging.getLogger(name)
    made.setLevel(logging.INFO)
    made.propagate = False
    made.addHandler(handler)
    return made


log = logger("app", logging.FileHandler("app.log"))
logger("elsewhere", Elsewhere("named.log"))
noted = []
on_load = {"ignore": signal.SIG_IGN, "default": signal.SIG_DFL, "own": lambda number, frame: noted.append(number)}
if os.environ["ON_LOAD"] in on_load:
    signal.signal(signal.SIGUSR1, on_load[os.environ["ON_LOAD"]])

rotations = 0


def rotate(names=LOGS):
    global rotations
    rotations += 1
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, "%s.%d" % (name, rotations))


def stale():
    """The log files that this process writes to although they were renamed, and descriptors too."""
    handlers = [handler for name in ("gunicorn.access", "gunicorn.error", "app") for handler in handlers_of(name)]
    found = [h.baseFilename for h in handlers if not is_open_as(h.stream, h.baseFilename)]
    return found + [fd for fd in (1, 2) if not is_open_as(fd, "error.log")]


def handlers_of(name):
    return logging.getLogger(name).handlers


def is_open_as(file, path):
    try:
        return os.path.samefile(file if isinstance(file, int) else file.fileno(), path)
    except (AttributeError, OSError, ValueError):  # The one is not there yet, or the other is just being closed
        return False


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def signalled(*names):
    """What is wrong after a rotation and a signal."""
    rotate(*names)
    os.kill(os.getpid(), signal.SIGUSR1)
    return "" if until(lambda: not stale()) else "not reopened: %s" % stale()


def in_child(check):
    """What a check says in a forked process, which must end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, check().encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


def boot():
    """A boot that missed nothing reopens nothing, wherever a handler writes to."""
    return "%d reopenings" % Counting.reopenings if Counting.reopenings else ""


def blocked_loop():
    """The loop is blocked by this function itself; a second signal is as good as the first."""
    return signalled() or signalled()


def own_handler():
    os.kill(os.getpid(), signal.SIGUSR1)
    return "" if until(lambda: noted) else "the application's own handler was not called"


def after_a_call():
    """A line that follows a call of C, which has blocked past the rotation, is in the new file: the other is gone."""
    os.mkfifo("fifo")
    libc = ctypes.CDLL(None)
    writer = os.open("fifo", os.O_RDWR)
    reader = libc.open(b"fifo", os.O_RDONLY)
    main = "/proc/self/task/%d/syscall" % os.getpid()

    def rotation():
        until(lambda: _read(main).startswith("0 "))  # read(2)
        rotate()
        os.kill(os.getpid(), signal.SIGUSR1)
        for name in LOGS:
            os.unlink("%s.%d" % (name, rotations))
        os.write(writer, b"x")

    lost = []
    for number in range(100):
        thread = threading.Thread(target=rotation)
        thread.start()
        returned = libc.read(reader, ctypes.create_string_buffer(1), 1)
        log.info("line %d", number)
        thread.join()
        if returned != 1:
            return "read(2) was interrupted"
        if not until(lambda: not stale()):
            return "not reopened: %s" % stale()
        if "line %d\n" % number not in _read("app.log"):
            lost.append(number)
    return "%d of 100 lines are lost" % len(lost) if lost else ""


def _read(path):
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        return file.read()
    return ""


def no_longer_than_needed():
    """The handler waits for the thread, and not for its deadline."""
    times = []
    for _ in range(21):
        start = time.monotonic()
        os.kill(os.getpid(), signal.SIGUSR1)
        times.append(time.monotonic() - start)
        until(lambda: not stale())
    median = sorted(times)[10]
    return "the handler takes %.3f s" % median if median > 0.045 else ""


def in_get_logger():
    """What is interrupted holds the lock that the thread waits for, as in getLogger()."""
    return holding(logging._lock)


def in_the_roots_write():
    """The same, where the thread comes to the root's file: patched, Gunicorn reopens that, too."""
    with contextlib.closing(logging.FileHandler("root.log")) as handler:
        logging.getLogger().addHandler(handler)
        reopen_files = Counting.worker.log.reopen_files
        Counting.worker.log.reopen_files = lambda: (handler.acquire(), handler.release(), reopen_files())
        said = holding(handler.lock)
        del Counting.worker.log.reopen_files
        logging.getLogger().removeHandler(handler)
    return said


def holding(lock):
    with lock:
        start = time.monotonic()
        os.kill(os.getpid(), signal.SIGUSR1)
        took = time.monotonic() - start
    return "the handler takes %.3f s" % took if took > 0.5 else signalled()


def forked():
    return in_child(lambda: signalled() or signalled())


def forked_in_between():
    """A process that is forked when a thread is about to start has none that does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # The thread waits for this one
    try:
        Counting.worker.handle_usr1(signal.SIGUSR1, None)
        said = in_child(signalled)
    finally:
        sys.setswitchinterval(interval)
    return said


def no_thread():
    """Where no thread can be started; the first time a rotation is honoured, and the next, also at once."""
    handler = Interrupted("interrupted.log")
    log.addHandler(handler)
    unlimited, size = resource.getrlimit(resource.RLIMIT_AS), threading.stack_size(1 << 30)
    used = int(_read("/proc/self/statm").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), unlimited[1]))
    try:
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=int).start()
            return "a thread can be started"
        for _ in range(2):
            rotate(["access.log", "app.log", "interrupted.log"])
            handler.due = True
            start = time.monotonic()
            os.kill(os.getpid(), signal.SIGUSR1)
            if time.monotonic() - start > 0.5:
                return "the handler waits for a thread that there is not"
            if not until(lambda: not [name for name in stale() if not str(name).endswith("error.log")]):
                return "not reopened: %s" % stale()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
        threading.stack_size(size)
        log.removeHandler(handler)
    return ""


class Writer(threading.Thread):
    """Logs all the time, and keeps what is raised."""

    def __init__(self):
        super().__init__(daemon=True)
        self.lines, self.raised, self.ending = 0, [], False
        self.start()

    def run(self):
        while not self.ending:
            try:
                log.info("numbered %d", self.lines)
            except OSError as error:
                self.raised.append(repr(error))
            self.lines += 1
            time.sleep(0)

    def end(self):
        self.ending = True
        self.join(PATIENCE)
        if self.is_alive():
            return "a thread that logs hangs"
        return "%d of %d calls raised %s" % (len(self.raised), self.lines, self.raised[0]) if self.raised else ""


def unopenable():
    """A log that cannot be opened goes on as it is, is told of, and keeps no other from being reopened."""
    logger("slow", Slow("slow.log"))  # It takes so long that others see how the logs are in between
    rotate()
    os.mkdir("app.log")
    writer = Writer()
    os.kill(os.getpid(), signal.SIGUSR1)
    path = os.path.abspath("app.log")
    if not until(lambda: stale() == [path] and _told()):
        return "not reopened: %s, or not told" % stale()
    log.info("still there")
    said = writer.end()
    if "still there" not in _read("app.log.%d" % rotations):
        return "the line is not in the file that the log had"
    os.rmdir("app.log")
    return said or signalled(["access.log"])


def pairs():
    """Several logs that cannot be opened, and signals in pairs, as killall sends them: nobody hangs."""
    others = ["other%d.log" % number for number in range(3)]
    for name in others:
        logger(name, logging.FileHandler(name))
    rotate(["app.log", *others])
    for name in ("app.log", *others):
        os.mkdir(name)
    writer = Writer()
    sender = threading.Thread(target=_send_pairs)
    sender.start()
    while sender.is_alive():
        sender.join(0.001)
    said = writer.end()
    if not said:
        for name in ("app.log", *others):
            os.rmdir(name)
        said = signalled()
    for name in others:
        logging.getLogger(name).handlers.clear()
    return said


def _send_pairs():
    for _ in range(300):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.002)


def inherited():
    """The access log is the arbiter's: a worker that cannot open it leaves in good order, a child of it does not."""
    rotate(["access.log"])
    os.mkdir("access.log")
    os.kill(os.getpid(), signal.SIGUSR1)
    return ""


def forked_with_inherited():
    """In a forked process that cannot open what the arbiter had opened, the worker goes on."""
    ends = []
    server = signal.signal(signal.SIGTERM, lambda number, frame: ends.append(number))
    rotate(["access.log"])
    os.mkdir("access.log")
    said = in_child(lambda: os.kill(os.getpid(), signal.SIGUSR1) or ("" if until(_told) else "not told"))
    os.rmdir("access.log")
    signal.signal(signal.SIGTERM, server)
    return said or ("the worker is told to end" if ends else signalled())


def _told():
    return any("IsADirectoryError" in _read(name) for name in os.listdir() if name.startswith("error.log"))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": "lifespan.%s.complete" % event})
        return
    check = globals().get(scope["path"][1:], lambda: "")
    body = (check() or "ok").encode()
    await asyncio.sleep(0)
    headers = [(b"content-length", b"%d" % len(body)), (b"pid", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
