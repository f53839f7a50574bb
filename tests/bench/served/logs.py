"""How the application logs: by a named logger, the root or a queue, to so many files."""

import logging
import logging.handlers
import os
import queue

import checkpoints

by = os.environ.get("LOGGED_BY", "named")
path = os.environ["APPLICATION_LOG"]
handlers = [logging.FileHandler(path)]
handlers += [logging.FileHandler("%s-%d.log" % (path[:-4], n)) for n in range(1, int(os.environ.get("FILES", "1")))]
log = logging.getLogger(None if by == "root" else "application")
log.setLevel(logging.INFO)
if by == "queue":
    lines = queue.Queue()
    log.addHandler(logging.handlers.QueueHandler(lines))
    logging.handlers.QueueListener(lines, *handlers).start()
else:
    for handler in handlers:
        log.addHandler(handler)
error_log = logging.getLogger("gunicorn.error")


def record(request):
    log.info(request)
    error_log.info(request)


checkpoints.note("started", os.getpid())
