"""What runs on this machine, as proc(5) shows it; nothing where there is no /proc, as on macOS."""

import contextlib
import os
from pathlib import Path
from typing import Dict, NamedTuple


class Process(NamedTuple):
    parent: int
    started: float  # In the time of files, right to a second: the kernel counts from the second it booted in


def running() -> Dict[int, Process]:
    """By pid; not what has ended and only waits for its parent to notice."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It has ended meanwhile
            state, parent, *more = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                booted = Path("/proc/stat").read_text().partition("\nbtime ")[2].split()[0]
                started = int(more[17]) / os.sysconf("SC_CLK_TCK")
                found[int(path.name)] = Process(int(parent), int(booted) + started)
    return found
