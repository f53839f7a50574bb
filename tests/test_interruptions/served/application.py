"""The application of the interruption tests; interrupted.py is the server's configuration."""

import logging
import os
import threading

import interrupted

interrupted.interrupter.enter("loading")
log = logging.getLogger("app.part")  # Its parent comes after it
parent = logging.getLogger("app")
parent.setLevel(logging.INFO)
parent.addHandler(logging.FileHandler("app.log"))
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
    stale = interrupted.stale_in_the_end() if last else []
    log.info("app %s", path)
    threading.Thread(target=bool).start()  # It takes locks that a signal handler must do without
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    if last:
        interrupted.report(checked=os.getpid(), stale=stale, inherited=interrupted.inherited())
        interrupted.interrupter.enter("closing")
