"""Log handlers as applications make them, each with something of its own; HANDLERS says which: see ../cases.py."""

import functools
import gzip
import io
import json
import logging
import logging.handlers
import multiprocessing
import os
import queue
import signal
import threading


def own_path(path):
    return os.path.join(os.path.dirname(path), "own-" + os.path.basename(path))


class Header:
    def _open(self):
        stream = super()._open()
        if stream is not None:
            stream.write("# header\n")
        return stream


class Named:
    """Opens another file than the one that it is named after, a new one each time."""

    opened = 0

    def _open(self):
        self.opened += 1
        return open("%s-%d" % (own_path(self.baseFilename), self.opened), "a", encoding=self.encoding)


class Moded:
    """Has the mode of its file where others have that of open()."""

    def _open(self):
        self.mode = 0o640
        stream = open(self.baseFilename, "a", encoding=self.encoding)  # noqa: SIM115
        os.chmod(self.baseFilename, self.mode)
        return stream


class Lazy:
    """Opens its file when there is something to write, as that of concurrent-log-handler does."""

    def _open(self):
        if hasattr(self, "stream"):
            return None
        return super()._open()

    def emit(self, record):
        if self.stream is None:
            self.stream = open(self.baseFilename, "a", encoding=self.encoding)  # noqa: SIM115
        super().emit(record)


class Assigned:
    """Has an _open() that was assigned to it, and is no function."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._open = functools.partial(self.open_for_the_group)

    def open_for_the_group(self):
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        return open(descriptor, "a", encoding=self.encoding)


class Flushing:
    """Flushes when there is more to write."""

    def flush(self):
        pass


class Compressed:
    def _open(self):
        return gzip.open(self.baseFilename, "at", encoding=self.encoding)


class Footer:
    def close(self):
        if self.stream:
            self.stream.write("# footer\n")
        super().close()


class Emitting:
    def emit(self, record):
        self.stream = self.stream or self._open()
        self.stream.write(self.format(record) + "\n")
        self.stream.flush()


class Interrupted:
    """A signal comes while it writes, and nobody may close its file then."""

    writing = False

    def emit(self, record):
        self.writing = True
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            self.writing = False
        super().emit(record)

    def close(self):
        if self.writing:
            raise RuntimeError("closed in the middle of a line")
        super().close()


class Equal:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        return True


class Incomparable:
    __hash__ = object.__hash__

    def __eq__(self, other):
        raise RuntimeError("is not to be compared")


class Lock:
    """With the methods that logging calls, and no more."""

    def __init__(self):
        lock = threading.RLock()
        self.acquire, self.release = lock.acquire, lock.release

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exc_info):
        self.release()


class Locked:
    def createLock(self):
        self.lock = Lock()


class Shared:
    """Among processes."""

    def createLock(self):
        self.lock = multiprocessing.RLock()


class Stream:
    """With the methods that logging calls, and no more."""

    def __init__(self, stream):
        self.write, self.flush, self.close = stream.write, stream.flush, stream.close


class Streaming:
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stream = self.stream and Stream(self.stream)


class EndingStream(io.TextIOWrapper):
    def close(self):
        if not self.closed:
            self.write("# footer\n")
        super().close()


class Ending:
    """Has a stream that writes a last line."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.stream:
            self.stream = EndingStream(self.stream.detach(), encoding=self.encoding)


class Computed:
    """Has its stream where others do not look, and writes a first line to each."""

    @property
    def stream(self):
        return self.output

    @stream.setter
    def stream(self, stream):
        self.output = stream
        if stream:
            stream.write("# header\n")


class Streamless:
    """Has no stream: it opens its file for each line."""

    def __init__(self, path, mode, delay, encoding):
        logging.Handler.__init__(self)
        self.baseFilename, self.mode, self.encoding = path, mode, encoding

    def emit(self, record):
        with open(self.baseFilename, "a", encoding=self.encoding) as stream:
            stream.write(self.format(record) + "\n")

    def close(self):
        logging.Handler.close(self)


class Elsewhere:
    """Writes to a stream that it was given, and its own file does not matter: some tell processes apart like that."""

    def __init__(self, path, *args, **kwargs):
        super().__init__(path, *args, **dict(kwargs, delay=True))
        self.stream = open(own_path(path), "a", encoding=self.encoding)  # noqa: SIM115


class BeingMade:
    """Gets a signal when it is known to logging, and has nothing yet."""

    def createLock(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        super().createLock()


class Born(BeingMade):
    stream = None


def make(number, own, base, mode, delay, encoding):
    bases = [globals()[name] for name in own] + [getattr(logging.handlers, base, logging.FileHandler)]
    path = os.path.join(os.path.dirname(os.environ["APPLICATION_LOG"]), "drawn-%d.log" % number)
    if number % 2 and not own and base == "FileHandler":
        path = os.fsencode(path)  # As a name may be
    rotates = {"maxBytes": 200, "backupCount": 50} if base == "RotatingFileHandler" else {}
    handler = type("Own", tuple(bases), {})(path, mode=mode, delay=delay, encoding=encoding, **rotates)
    handler.addFilter(logging.Filter("drawn.%d" % number))
    return handler


class Listener(logging.handlers.QueueListener):
    """Goes on when a handler fails: without this thread, join() would wait for ever."""

    def handle(self, record):
        try:
            super().handle(record)
        except OSError:
            self.handlers[0].handleError(record)


class Drawn:
    def __init__(self, number, place, **what):
        self.handler = make(number, **what)
        self.place = place
        self.log = logging.getLogger("drawn.%d" % number)
        self.log.setLevel(logging.INFO)
        self.log.propagate = place in ("root", "unused")
        if place == "unused":
            self.handler.setLevel(logging.CRITICAL)
        self.pid = None
        if self.log.propagate:
            logging.root.handlers.append(self.handler)  # No addHandler(): it compares them
        elif place in ("logger", "loggers"):
            self.log.handlers.append(self.handler)
        elif place == "memory":
            self.log.addHandler(logging.handlers.MemoryHandler(1, target=self.handler))
        if place == "loggers":
            logging.getLogger("another.%d" % number).handlers.append(self.handler)

    def record(self, request):
        if self.place == "removed":
            return
        if self.place == "queue" and self.pid != os.getpid():
            self.pid, self.queue = os.getpid(), queue.Queue()
            self.log.handlers[:] = [logging.handlers.QueueHandler(self.queue)]
            Listener(self.queue, self.handler).start()
        if self.place == "nowhere":
            self.handler.handle(logging.LogRecord(self.log.name, logging.INFO, "", 0, request + " \xe9", (), None))
        else:
            self.log.info("%s \xe9", request)
        if self.place == "queue":
            self.queue.join()


drawn = [Drawn(number, **what) for number, what in enumerate(json.loads(os.environ.get("HANDLERS", "[]")))]


def record(request):
    for one in drawn:
        one.record(request)
