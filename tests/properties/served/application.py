"""
The application that the properties serve: plain ASGI, with a log file of its own.

A request's path is /KIND/id-N, and each line that it logs names its id-N: one in the
access log, one in the error log, one in the application's log.
"""

import asyncio
import atexit
import logging
import os
import sys
import time

import checkpoints

log = logging.getLogger("application")
log.setLevel(logging.INFO)
log.propagate = False
handler = logging.FileHandler(os.environ["APPLICATION_LOG"], mode=os.environ.get("APPLICATION_LOG_MODE", "a"))
handler.setFormatter(logging.Formatter("[%(process)d] %(message)s"))
log.addHandler(handler)
error_log = logging.getLogger("gunicorn.error")


def record(message):
    log.info(message)
    error_log.info(message)


class Finalization:
    """Holds the process when the interpreter clears its modules, long after atexit."""

    def __del__(self, os=os, time=time, directory=checkpoints.CONTROL):
        place = directory + "/hold.finalization"
        try:
            os.stat(place)
            os.close(os.open(directory + "/finalization.%d" % os.getpid(), os.O_CREAT | os.O_WRONLY))
            while True:
                os.stat(place)
                time.sleep(0.002)
        except OSError:
            return


sys.cleared_last = Finalization()
atexit.register(checkpoints.pause, "atexit")
record("boot-load %d" % os.getpid())
checkpoints.pause("load")


async def lifespan(receive, send):
    await receive()
    record("boot-lifespan %d" % os.getpid())
    await checkpoints.pause_async("lifespan")
    checkpoints.pause("blocking-lifespan")
    await send({"type": "lifespan.startup.complete"})
    checkpoints.mark("started")
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
        checkpoints.mark(request)
        time.sleep(float(scope["query_string"]))
    elif kind == "async":
        await checkpoints.pause_async(request)
    await answer(send, str(os.getpid()))
