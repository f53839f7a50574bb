"""Gunicorn's configuration: hooks that a test can hold, and a note of each worker's exit status."""

import atexit
import os

import checkpoints

arbiter = os.getpid()
waitpid = os.waitpid


def noting_waitpid(pid, options):
    found, status = waitpid(pid, options)
    if pid == -1 and found and os.getpid() == arbiter:  # Not what somebody runs with subprocess
        with open(os.path.join(checkpoints.CONTROL, "exits"), "a") as exits:
            exits.write("%d %d\n" % (found, status))
    return found, status


os.waitpid = noting_waitpid


def post_fork(server, worker):
    atexit.register(checkpoints.pause, "last-atexit")
    checkpoints.pause("post_fork")


def worker_exit(server, worker):
    checkpoints.pause("worker_exit")
