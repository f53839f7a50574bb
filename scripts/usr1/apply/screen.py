"""What is said: lines that stay, and meanwhile what is waited for."""

import os
import selectors
import shutil
import subprocess
import sys
import time
from typing import Callable, Iterator, Optional, TextIO

PATIENCE = 1.0  # Seconds without a word from what is run, until it is said that it goes on
COLOURS = {"green": 32, "red": 31, "yellow": 33}

_before = ""  # What ends the line that the cursor is in: one that tell() wrote is replaced
_told = 0.0  # When something was last said


def say(text: str, end: str = "\n", stream: Optional[TextIO] = None) -> None:
    global _before, _told
    # What is said must never decide what is done: once it cannot be written (A | head, a full disk),
    # the rest goes nowhere.
    stream = stream or sys.stdout
    before, _before, _told = _before, "", time.monotonic()
    try:
        print(before + text, end=end, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"apply.sh: cannot write what there is to say: {error}", stream=sys.stderr)


def tell(text: str) -> None:
    """Say what is going on: on a terminal in one line, elsewhere if nothing else was said for long."""
    global _before
    if sys.stdout.isatty():
        say(text[: shutil.get_terminal_size().columns - 1], end="")
        _before = "\r\033[K"
    elif time.monotonic() - _told >= 1.5 * PATIENCE:  # Asked each second, so within two
        say(text)


def dot() -> None:
    """Say that something goes on, and replace nothing: it may be asking for something on the terminal."""
    global _before
    _before = ""
    say(".", end="")
    _before = "\n"


def painted(text: str, colour: str) -> str:
    """https://no-color.org"""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def heard(process: "subprocess.Popen[bytes]", waiting: Callable[[], None]) -> Iterator[str]:
    """What a process prints, line by line; as long as it prints nothing, calls waiting() each second."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(PATIENCE):
                waiting()
                continue
            said = os.read(process.stdout.fileno(), 65536)
            if not said:
                break
            *lines, rest = (rest + said).split(b"\n")
            yield from map(plain, lines)
    if rest:
        yield plain(rest)


def plain(said: bytes) -> str:
    """Without what a terminal obeys: root's need not be what another user's code takes it for."""
    return "".join(one if one.isprintable() or one == "\t" else "?" for one in said.decode(errors="replace"))
