"""
Signals at bytecode boundaries of this process.

The trace function is raise(3) itself, called through ctypes: no bytecode runs between the signal and the traced
instruction, so a signal before the call of write() or flush() is handled where a real one is, inside the call. A
trace function written in Python would handle the signal itself, before the instruction, and see no reentrant write.

Python 3.7 or later: it runs in the target environment.
"""

import ctypes
import sys


class Chosen:
    """ctypes asks it what to raise for the frame that the trace function is called with."""

    @staticmethod
    def from_param(frame, integer=ctypes.c_int):
        return integer(choose(frame) if choose else 0)  # Neither is there any more when the interpreter ends


class Ignored:
    @staticmethod
    def from_param(event_or_argument, integer=ctypes.c_int):
        return integer(0)


choose = None  # For a frame that is at a boundary, the number of the signal that is raised there; 0 for none

raise_chosen = getattr(ctypes.PyDLL(None), "raise")
raise_chosen.argtypes = (Chosen, Ignored, Ignored)
raise_chosen.restype = None


sys._getframe().f_trace_opcodes = True  # For Python 3.12, where settrace() looks whether any frame has it


def trace_boundaries(frame, trace=raise_chosen):
    frame.f_trace = trace  # Else 3.13 takes no notice of the next line
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    return trace
