"""The same application, with the same logs and the same control, for worker classes that serve WSGI."""

import os
import time

import checkpoints
from application import begin, block, in_thread


def stream(request, chunks):
    for _ in range(chunks):
        yield b"chunk\n"
        checkpoints.pause(request)
        time.sleep(0.001)
    yield str(os.getpid()).encode()


def app(environ, start_response):
    kind, request = environ["PATH_INFO"].split("/")[1:3]
    if kind == "thread":
        in_thread(request)
    else:
        begin(kind, request)
    if kind == "stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(request, int(environ["QUERY_STRING"] or 3))
    if kind == "upload":
        checkpoints.mark(request)
        environ["wsgi.input"].read()
    elif kind in ("async", "errors"):
        checkpoints.pause(request)
    if kind == "errors":
        environ["wsgi.errors"].write("written late by %s\n" % request)
    body = str(block(kind, request)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
