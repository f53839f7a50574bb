"""Gunicorn's configuration for the scenarios, and the worker class: it counts."""

import json
import os

try:
    from uvicorn_worker import UvicornH11Worker
except ImportError:
    from uvicorn.workers import UvicornH11Worker

accesslog, errorlog = "access.log", "error.log"
capture_output = True
control_socket_disable = True


class Counting(UvicornH11Worker):
    worker = None
    reopenings = 0

    def init_process(self):
        Counting.worker = self
        super().init_process()

    def _reopen_logs(self, *arguments):
        Counting.reopenings += 1
        super()._reopen_logs(*arguments)


def on_starting(server):
    """The arbiter keeps the exit status of a worker to itself: note it down."""
    waitpid = os.waitpid

    def noting(pid, options):
        pid, status = waitpid(pid, options)
        if pid:
            with open("exits", "a") as exits:
                exits.write(json.dumps([pid, status]) + "\n")
        return pid, status

    os.waitpid = noting
