"""The application of the interruption tests; interrupted.py is the server's configuration."""

import asyncio
import logging
import os

import interrupted

interrupted.interrupter.enter("loading")
log = logging.getLogger("app")
log.setLevel(logging.INFO)
log.addHandler(logging.FileHandler("app.log"))
logging.getLogger("gone").addHandler(logging.FileHandler(interrupted.GONE))
os.unlink(interrupted.GONE)  # There is nothing to reopen, and nothing to complain about


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        interrupted.interrupter.to_be_ended = False  # It has been told
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    last = path.endswith("-check")
    if path.endswith("-0"):
        interrupted.interrupter.enter("serving")
    interrupted.interrupter.arm(not last)
    for _ in range(50 if last else 0):
        if not interrupted.stale():
            break
        await asyncio.sleep(0.02)
    log.info("app %s", path)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    if last:
        interrupted.report(checked=os.getpid(), stale=interrupted.stale(), inherited=interrupted.inherited())
        interrupted.interrupter.enter("closing")
