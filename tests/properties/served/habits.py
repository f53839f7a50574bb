"""What applications do that a signal for their logs may come into, each as a request or while they load."""

import _thread
import asyncio
import contextlib
import functools
import gc
import logging
import os
import resource
import signal
import threading
import time
import types

import checkpoints
import handlers
from gunicorn.glogging import Logger

USR1 = signal.SIGUSR1


def signal_as_the_loop_closes():
    loop = asyncio.get_event_loop()
    close = loop.close

    def close_and_signal():
        close()
        os.kill(os.getpid(), USR1)

    loop.close = close_and_signal


def collect_garbage():
    """PyPy closes a file that nothing refers to any more when it collects garbage: here soon after a rotation."""
    while True:
        time.sleep(0.1)
        if any(name[-1].isdigit() for name in os.listdir("logs")):
            gc.collect()


def replace_reopen_files():
    logging.root.manager.loggerDict["none"] = types.SimpleNamespace(handlers=None)  # Published code stops at it, too
    Logger.reopen_files = functools.wraps(Logger.reopen_files)(lambda log: checkpoints.note("noted"))


def replace_open(published=logging.FileHandler._open):
    def open_with_header(handler):
        stream = published(handler)
        stream.write("# header\n")
        return stream

    logging.FileHandler._open = open_with_header


def nothing():
    pass


def hold_locks(seconds=2, backwards=False):
    """As a write to a slow disk does, in a thread that has to wait for the other locks."""
    locks = [one.handler.lock for one in handlers.drawn]
    held = threading.Event()

    def hold():
        for lock in locks[:: -1 if backwards else 1]:
            lock.acquire()
        held.set()
        time.sleep(seconds)
        for lock in locks:
            lock.release()

    threading.Thread(target=hold, daemon=True).start()
    held.wait()


def hold_locks_backwards():
    hold_locks(0.2, backwards=True)


def make_handlers(name="BeingMade"):
    """And forget it, with a signal while it is made."""
    handlers.make(99, [name], "FileHandler", "a", True, None)


def make_handlers_of_a_class_with_a_stream():
    make_handlers("Born")


def deplete():
    """Have no descriptor left when the signal comes, but those that are closed then."""
    limits, filled = resource.getrlimit(resource.RLIMIT_NOFILE), []
    most = max(int(fd) for fd in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        signal_and_wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in filled:
            os.close(fd)


def signal_and_wait():
    """Until another thread, the main one, has had the time to handle it."""
    os.kill(os.getpid(), USR1)
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.1)


def starve():
    """Have no room for the stack of another thread from now on: RLIMIT_NPROC does not hold for root."""
    _thread.stack_size(256 << 20)  # Larger than any that the C library may have kept from a thread that has ended
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))


def hold_first_line():
    """Have the lock of a handler that has not opened its file, as who writes the first line has."""
    for one in handlers.drawn:
        with one.handler.lock:
            signal_and_wait()
