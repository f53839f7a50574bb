"""What is said: lines that stay, and meanwhile what is waited for."""

import os
import select
import shutil
import subprocess
import sys
import textwrap
import time
from typing import Callable, Iterator, Optional, TextIO

PATIENCE = 1.0  # Seconds without a word from what is run, until progress is shown
INTERVAL = 20.0  # Seconds between two lines of progress where there is no terminal
BAR = 40  # Characters
WRAPPED = textwrap.TextWrapper(
    110, subsequent_indent=" " * 7, break_long_words=False, expand_tabs=False, replace_whitespace=False
)
COLOURS = {"green": 32, "red": 31, "yellow": 33}

_before = ""  # What ends the line that the cursor is in: one that progress() wrote is replaced
_said = 0.0  # When something was last said


def say(text: str, end: str = "\n", stream: Optional[TextIO] = None) -> None:
    global _before, _said
    # What is said must never decide what is done: once it cannot be written (A | head, a full disk),
    # the rest goes nowhere.
    stream = stream or sys.stdout
    before, _before, _said = _before, "", time.monotonic()
    try:
        print(before + text, end=end, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"apply.sh: cannot write what there is to say: {error}", stream=sys.stderr)


def progress(what: str, done: int, of: int) -> None:
    """Show how far something is: on a terminal by a bar, elsewhere by a line if nothing was said for a while."""
    global _before
    if sys.stdout.isatty():
        bar = "#" * (BAR * done // max(of, 1))
        say(f"{what:7} [{bar:{BAR}}] {done}/{of}"[: shutil.get_terminal_size().columns - 1], end="")
        _before = "\r\033[K"
    elif time.monotonic() - _said >= INTERVAL:
        say(f"  {what}: {done} of {of} done")


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


def lines_of(process: "subprocess.Popen[bytes]", waiting: Callable[[], None]) -> Iterator[str]:
    """What a process prints, line by line; as long as it prints nothing, calls waiting() each second."""
    assert process.stdout is not None
    rest = b""
    while True:
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
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
