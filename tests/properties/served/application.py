"""
The application that the properties serve: plain ASGI, with a log file of its own.

A request's path is /KIND/id-N, and each line that it logs names its id-N: one in the
access log, one in the error log, one in the application's log.
"""

import asyncio
import atexit
import ctypes
import logging
import os
import signal
import subprocess
import sys

import checkpoints
import finalization  # noqa: F401  only there to end with the interpreter


class OwnFile(logging.FileHandler):
    """Writes to another file than the one that it is named after, as some do to tell processes apart."""

    def _open(self):
        return open(os.environ["OWN_FILE"], "a")


log = logging.getLogger("application")
log.setLevel(logging.INFO)
log.propagate = False
Handler = OwnFile if "OWN_FILE" in os.environ else logging.FileHandler
handler = Handler(os.environ["APPLICATION_LOG"], mode=os.environ.get("APPLICATION_LOG_MODE", "a"))
handler.setFormatter(logging.Formatter("[%(process)d] %(message)s"))
log.addHandler(handler)
error_log = logging.getLogger("gunicorn.error")


def record(message):
    log.info(message)
    error_log.info(message)


atexit.register(checkpoints.pause, "atexit")
if "OWN_OUTPUT" in os.environ:
    sys.stdout = open(os.environ["OWN_OUTPUT"], "a", buffering=1)  # noqa: SIM115
ON_USR1 = {"": None, "ignore": signal.SIG_IGN, "note": lambda number, frame: checkpoints.note("noted")}
on_usr1 = ON_USR1[os.environ.get("ON_USR1", "")]
if on_usr1:
    signal.signal(signal.SIGUSR1, on_usr1)
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
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(chunks):
        await send({"type": "http.response.body", "body": b"chunk\n", "more_body": True})
        await checkpoints.pause_async(request)
        await asyncio.sleep(0.001)
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def read_body(receive, request):
    checkpoints.mark(request)
    while (await receive()).get("more_body"):
        pass


def fork(request):
    """The process id of a child that logs numbered lines, with its own name in them, until told to leave."""
    child = os.fork()
    if child:
        return str(child)
    try:
        checkpoints.mark(request)
        number = 0
        while checkpoints.held(request):
            number += 1
            record("%s line %d of process %d" % (request, number, os.getpid()))
        checkpoints.note("logged", number)
    finally:
        os._exit(0)


def read_in_c(request):
    """What read(2) returns when it is called from C and has to wait."""
    checkpoints.mark(request)
    libc = ctypes.CDLL(None)
    descriptor = libc.open(os.path.join(checkpoints.CONTROL, "fifo").encode(), os.O_RDONLY)
    return str(libc.read(descriptor, ctypes.create_string_buffer(1), 1) if descriptor > 0 else "interrupted")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    kind, request = scope["path"].split("/")[1:3]
    if scope["type"] == "websocket":
        return await websocket(request, receive, send)
    if kind == "thread":
        await asyncio.get_event_loop().run_in_executor(None, in_thread, request)
    else:
        record(request)
    if kind == "stream":
        return await stream(send, request, int(scope["query_string"] or 3))
    if kind == "upload":
        await read_body(receive, request)
    elif kind == "block":
        checkpoints.pause(request)
    elif kind == "async":
        await checkpoints.pause_async(request)
    elif kind == "print":
        print("printed", request, flush=True)
    elif kind == "spawn":
        return await answer(send, subprocess.check_output(["cat", "/proc/self/status"]).decode())
    elif kind == "fork":
        return await answer(send, fork(request))
    elif kind == "read":
        return await answer(send, read_in_c(request))
    await answer(send, str(os.getpid()))
