"""
The application that the tests serve: plain ASGI, with log files of its own.

A request's path is /KIND/id-N, and each line that it logs names its id-N: one in the
access log, one in the error log, one in the application's log. LOGGED_BY says how that gets
there: by a named logger, by the root logger or by a queue.
"""

import asyncio
import atexit
import ctypes
import logging
import logging.handlers
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import checkpoints
import finalization  # noqa: F401  only there to end with the interpreter
import habits
import handlers

by, path = os.environ.get("LOGGED_BY", "named"), os.environ["APPLICATION_LOG"]
log = logging.getLogger(None if by == "root" else "application")
log.setLevel(logging.INFO)
log.propagate = False
handler = logging.FileHandler(path, mode=os.environ.get("APPLICATION_LOG_MODE", "a"))
handler.setFormatter(logging.Formatter("[%(process)d] %(message)s"))
if by == "queue":
    lines = queue.Queue()
    log.addHandler(logging.handlers.QueueHandler(lines))
    logging.handlers.QueueListener(lines, handler).start()
else:
    log.addHandler(handler)
error_log = logging.getLogger("gunicorn.error")
loggers = [log, error_log]
if "ROOT_LOG" in os.environ:
    logging.basicConfig(filename=os.environ["ROOT_LOG"], level=logging.INFO)
    loggers.append(logging.getLogger("nameless"))


def record(message):
    for logger in loggers:
        logger.info(message)
    if message.startswith("id-"):
        handlers.record(message)


def begin(kind, request):
    """Log a request; a late one has blocked its worker before."""
    if kind == "late":
        time.sleep(0.5)
    record(request)


exec(os.environ.get("ON_LOAD", ""))  # What a test adds
atexit.register(checkpoints.pause, "atexit")
ON_USR1 = {
    "ignore": signal.SIG_IGN,
    "reset": signal.SIG_DFL,
    "note": lambda number, frame: checkpoints.note("noted"),
}
if os.environ.get("ON_USR1"):
    signal.signal(signal.SIGUSR1, ON_USR1[os.environ["ON_USR1"]])
getattr(habits, os.environ.get("HABIT", "nothing"))()
if sys.implementation.name == "pypy":
    threading.Thread(target=habits.collect_garbage, daemon=True).start()
record("boot-load %d" % os.getpid())
checkpoints.pause("load")


async def lifespan(receive, send):
    await receive()
    record("boot-lifespan %d" % os.getpid())
    await checkpoints.pause_async("lifespan")
    checkpoints.pause("blocking-lifespan")
    await send({"type": "lifespan.startup.complete"})
    checkpoints.note("started", os.getpid())
    await receive()
    await checkpoints.pause_async("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


def in_thread(request):
    record(request)
    checkpoints.pause(request)


async def websocket(request, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        record(message["text"])
        await send({"type": "websocket.send", "text": message["text"]})


async def answer(send, text):
    body = text.encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send, request, chunks):
    chunk, last = b"chunk\n", str(os.getpid()).encode()
    # Without it the asgi worker of Gunicorn 24.1.1, say, never comes to an end
    length = str(chunks * len(chunk) + len(last)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for _ in range(chunks):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await checkpoints.pause_async(request)
        await asyncio.sleep(0.001)
    await send({"type": "http.response.body", "body": last})


def spin(seconds):
    """Compute, and hold the lock of the logging module for much of the time, as who looks up a logger does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        logging.getLogger("application")


def log_line(request, number):
    record("%s line %d of process %d" % (request, number, os.getpid()))


def log_until_released(request, wait=lambda seconds: None):
    """Log numbered lines, up to a thousand a second if there is a wait, until the test lets go; how many."""
    checkpoints.mark(request)
    number = 0
    while checkpoints.held(request):
        number += 1
        log_line(request, number)
        wait(0.001)
    return number


def fork(request):
    """The process id of a child that logs until told to leave."""
    child = os.fork()
    if child:
        return child
    try:
        checkpoints.note("logged", os.getpid(), log_until_released(request))
    finally:
        os._exit(0)


def read_in_c(request):
    """Wait in read(2) where no bytecode runs, and then log some lines at once; how many."""
    descriptor = os.open(os.path.join(checkpoints.CONTROL, "fifo"), os.O_RDWR)
    checkpoints.mark(request)
    if ctypes.CDLL(None).read(descriptor, ctypes.create_string_buffer(1), 1) != 1:
        checkpoints.note("interrupted")
    for number in range(1, 101):
        log_line(request, number)
    os.close(descriptor)
    return 100


def block(kind, request):
    """Do what keeps the worker from anything else, with ASGI and WSGI; what is answered."""
    if kind == "block":
        checkpoints.pause(request)
    elif kind in ("print", "buffer"):
        print("printed", request, flush=kind == "print")
    elif kind == "spawn":
        return subprocess.check_output(["cat", "/proc/self/status"]).decode()
    elif kind == "fork":
        return fork(request)
    elif kind in vars(habits):
        vars(habits)[kind]()
    elif kind in ("sleeping", "executing"):  # Only WSGI comes here with the latter
        return log_until_released(request, time.sleep)
    elif kind == "spinning":
        return log_until_released(request, spin)
    elif kind == "reading":
        return read_in_c(request)
    return os.getpid()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    kind, request = scope["path"].split("/")[1:3]
    if scope["type"] == "websocket":
        return await websocket(request, receive, send)
    execute = asyncio.get_event_loop().run_in_executor
    if kind == "thread":
        await execute(None, in_thread, request)
    else:
        begin(kind, request)
    if kind == "stream":
        return await stream(send, request, int(scope["query_string"] or 3))
    if kind == "executing":
        return await answer(send, str(await execute(None, log_until_released, request, time.sleep)))
    if kind == "upload":
        checkpoints.mark(request)
        while (await receive()).get("more_body"):
            pass
    elif kind == "async":
        await checkpoints.pause_async(request)
    await answer(send, str(block(kind, request)))
