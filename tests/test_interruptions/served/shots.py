"""
Signals at bytecode boundaries of this process.

A signal that arrives there is handled by Python in the instruction that follows: if that calls write() or flush(), in
the middle of the write. To see that, the signal has to arrive while no other bytecode is left to run before the
instruction. Those of a trace function would be: the handler would be run in it, before the write. So what traces is
raise(3) of the C library itself.

sys.settrace() has it called as f(frame, event, argument); it takes an int. ctypes converts what a C function is
called with by the from_param() of its argtypes: that of the first one chooses the signal, and sees the frame for it;
0 is none. What runs in from_param() is over when the signal is raised.

Python 3.7 or later: it runs in the target environment.
"""

import ctypes
import itertools
import logging
import os
import sys

choose = None  # Given the frame that is at a boundary, the number of the signal to raise there, or 0
rotations = itertools.count()


def rotate(create=False):
    for name in ("access", "error", "application", "plain", "root"):
        path = os.path.join("logs", name + ".log")
        try:
            os.rename(path, "%s.%d.%d" % (path, os.getpid(), next(rotations)))
        except FileNotFoundError:
            continue
        if create:
            open(path, "x").close()


def is_open_as(file, path):
    try:
        return os.path.samefile(file if isinstance(file, int) else file.fileno(), path)
    except (AttributeError, OSError, ValueError):  # The one is not there yet, or the other is just being closed
        return False


def log_files():
    loggers = [logging.root, *list(logging.root.manager.loggerDict.values())]  # getLogger() may be interrupted
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def stale(*captured):
    """What this process writes to although it was rotated."""
    files = [(descriptor, "logs/error.log") for descriptor in captured]
    files += [(handler.stream, handler.baseFilename) for handler in log_files()]
    return [path for file, path in files if not is_open_as(file, path)]


class ChosenSignal:
    @staticmethod
    def from_param(frame, c_int=ctypes.c_int):
        return c_int(choose(frame) if choose else 0)  # Neither is there any more when the interpreter ends


raise_chosen = getattr(ctypes.PyDLL(None), "raise")
raise_chosen.argtypes = (ChosenSignal, ctypes.py_object, ctypes.py_object)  # raise(3) takes no more than the first
raise_chosen.restype = None  # As sys.settrace() expects


sys._getframe().f_trace_opcodes = True  # For Python 3.12, where settrace() looks whether any frame has it


def trace_boundaries(frame, trace=raise_chosen):
    """Have a frame tell of each of its bytecode boundaries from now on."""
    frame.f_trace = trace  # Else 3.13 takes no notice of the next line
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    return trace
