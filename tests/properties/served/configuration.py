"""Gunicorn's configuration: hooks that a test can hold, and notes of each worker's birth and end."""

import atexit
import ctypes
import importlib
import logging
import os
import signal

import checkpoints
import gunicorn
from gunicorn.arbiter import Arbiter

PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # End with the test, even if that is killed

if hasattr(Arbiter, "handle_chld"):  # 24.0.0 takes the signal for SIGCLD, its other name: no worker's end is noticed
    Arbiter.SIG_NAMES[signal.SIGCHLD] = "chld"

# Of 200 workers of this release, as published, one hangs as it starts, for a thread that the arbiter has forked with
control_socket_disable = gunicorn.__version__ == "25.1.0"

# gunicorn_usr1, where it is to do without a patch. The arbiter imports it, as for `-c python:gunicorn_usr1`.
settings = importlib.import_module(os.environ["USR1_SETTINGS"]) if os.environ.get("USR1_SETTINGS") else None

arbiter = os.getpid()
waitpid = os.waitpid


def noting_waitpid(pid, options):
    found, status = waitpid(pid, options)
    if pid == -1 and found and os.getpid() == arbiter:  # Not what somebody runs with subprocess
        checkpoints.note("ended", found, status)
    return found, status


os.waitpid = noting_waitpid


def post_fork(server, worker):
    if settings:
        settings.post_fork(server, worker)
    checkpoints.note("forked", os.getpid())
    atexit.register(checkpoints.pause, "last-atexit")
    if "HOOK_LOG" in os.environ:
        worker.log.error_log.addHandler(logging.FileHandler(os.environ["HOOK_LOG"]))
    checkpoints.pause("post_fork")


def post_worker_init(worker):
    if os.environ["SERVES"] != "application":  # With ASGI the application's lifespan says so
        checkpoints.note("started", os.getpid())


def worker_exit(server, worker):
    checkpoints.pause("worker_exit")
