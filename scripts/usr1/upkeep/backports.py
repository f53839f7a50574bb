"""
The change of the newest patch, made to every other release: what differs there, and why.

The newest patch of a project is the source. Its change is carried over line by line to the files of another
release, uvicorn's also to those of uvicorn-worker, after the differences that hold there were put into it.
"""

import functools
from difflib import SequenceMatcher
from typing import Dict, List, NamedTuple, Optional, Tuple

from packaging.version import Version

from usr1.patches import PatchError

#: The distribution whose newest patch those of a distribution follow from.
SOURCES = {"uvicorn": "uvicorn", "uvicorn-worker": "uvicorn", "gunicorn": "gunicorn"}
#: What another distribution than the source calls a file.
RENAMED = {"uvicorn-worker": {"uvicorn/workers.py": "uvicorn_worker/_workers.py"}}


class Replacement(NamedTuple):
    newest: str
    there: str


class Difference(NamedTuple):
    """What is otherwise in some releases of a distribution: from one to another, both included."""

    why: str
    distribution: str
    since: str
    until: str
    upstream: Tuple[Replacement, ...] = ()  # What upstream's file has instead, where the change touches it
    change: Tuple[Replacement, ...] = ()  # What the patched file has instead
    description: Tuple[Replacement, ...] = ()
    file: str = ""  # Which of the files that the newest patch changes, if they are several
    without: Tuple[str, ...] = ()  # Files that the release does not have, or that need no change there

    def holds_in(self, distribution: str, release: str) -> bool:
        return distribution == self.distribution and Version(self.since) <= Version(release) <= Version(self.until)


CAPTURE = "    def capture_signals(self: Any) -> Any:\n"
INSTALL = "    def install_signal_handlers(self: Any) -> None:\n"
INSTALL_OR_CAPTURE = """\
    def install_signal_handlers(self: Any) -> None:  # Up to uvicorn 0.28.1
        self.worker._capture_usr1()
        super().install_signal_handlers()

    def capture_signals(self: Any) -> Any:
"""
RESET = """\
        # Reset signals so Gunicorn doesn't swallow subprocess return codes
        # other signals are set up by Server.install_signal_handlers()
        # See: https://github.com/Kludex/uvicorn/issues/894
        for s in {}:
            signal.signal(s, signal.SIG_DFL)
"""
HANDLE = """\

        signal.signal(signal.SIGUSR1, self.handle_usr1)
        # Don't let SIGUSR1 disturb active requests by interrupting system calls
        signal.siginterrupt(signal.SIGUSR1, False)
"""
AWAIT = "await server.serve(sockets={})"
RUN = "loop.run_until_complete(server.serve(sockets={}))"
UNWRAPPED = '[getattr(s, "sock", s) for s in self.sockets]'
REENTRANT = (
    "Upstream reopens the files in the signal handler by closing them, so between any two bytecodes: in the middle "
    'of a log write, which fails with "reentrant call" and leaves files unrotated. A signal while the worker boots '
    "is swallowed."
)
FATAL = "Upstream resets the signal to SIG_DFL, so it kills the worker and the requests that it is serving."
SWALLOWED = (
    "Upstream leaves Gunicorn's handler in place, which swallows the signal: the worker goes on writing to the "
    "rotated files."
)
#: What reopen_files() does with every handler, its first lines
FIRST = """\

        for log in loggers():
            for handler in log.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.acquire()
                    try:
                        if handler.stream:
                            handler.close()
"""

#: In this order: a later one finds the text as the earlier ones have left it.
DIFFERENCES = (
    Difference(
        "Server takes its signals over in install_signal_handlers(); capture_signals() came with 0.29.0",
        *("uvicorn", "0.13.0", "0.28.1"),
        change=(
            Replacement(CAPTURE, INSTALL),
            Replacement("return super().capture_signals()", "super().install_signal_handlers()"),
        ),
        description=(Replacement("Server.capture_signals()", "Server.install_signal_handlers()"),),
    ),
    Difference(
        "it runs with uvicorn before and after 0.29.0, so with either method of Server",
        *("uvicorn-worker", "0.2.0", "0.3.0"),
        change=(Replacement(CAPTURE, INSTALL_OR_CAPTURE),),
        description=(Replacement("Server.capture", "Server.install_signal_handlers() or Server.capture"),),
    ),
    Difference(
        "upstream installs a handler from 0.19.0 on, and reset the signal before",
        *("uvicorn", "0.13.0", "0.18.3"),
        upstream=(Replacement(HANDLE, ""),),
        description=(Replacement(REENTRANT, FATAL),),
    ),
    Difference(
        "init_signals() did nothing before 0.13.3, and so needed no import",
        *("uvicorn", "0.13.0", "0.13.2"),
        upstream=(
            Replacement("import signal\n", ""),
            Replacement(RESET.format("self.SIGNALS"), "        pass\n"),
        ),
        change=(Replacement(RESET.format("set(self.SIGNALS) - {signal.SIGUSR1}") + "\n", ""),),
        description=(Replacement(FATAL, SWALLOWED),),
    ),
    Difference(
        "upstream imported neither sys nor warnings before 0.15.0",
        *("uvicorn", "0.13.0", "0.14.0"),
        upstream=(Replacement("import sys\n", ""),),
    ),
    Difference(
        "workers had no _serve() before 0.15.0",
        *("uvicorn", "0.13.0", "0.14.0"),
        upstream=(Replacement(AWAIT.format("self.sockets"), RUN.format("self.sockets")),),
        change=(Replacement(AWAIT.format(UNWRAPPED), RUN.format(UNWRAPPED)),),
    ),
    Difference(
        "upstream annotated nothing before 0.14.0",
        *("uvicorn", "0.13.0", "0.13.4"),
        change=(
            Replacement("install_signal_handlers(self: Any) -> None:", "install_signal_handlers(self):"),
            Replacement("server: Any = ", "server = "),
            Replacement("(self, handler: Any) -> bool:", "(self, handler):"),
            Replacement("(handler: Any) -> None:", "(handler):"),
            Replacement("_capture_usr1(self) -> None:", "_capture_usr1(self):"),
            Replacement("(self, sig: int, frame: Any) -> None:", "(self, sig, frame):"),
            Replacement("(self: Any, sig: int, frame: Any) -> None:", "(self, sig, frame):"),
            Replacement("_reopen_plain(self) -> bool:", "_reopen_plain(self):"),
        ),
    ),
    Difference(
        "there were no dirty workers before 25.0.0",
        *("gunicorn", "20.0.0", "24.1.1"),
        without=("gunicorn/dirty/arbiter.py", "gunicorn/dirty/worker.py"),
    ),
    Difference(
        "there was no asgi worker before 24.0.0, and gthread had no end of its own",
        *("gunicorn", "20.0.0", "23.0.0"),
        without=("gunicorn/workers/gasgi.py", "gunicorn/workers/gthread.py"),
    ),
    Difference(
        "the names of loggers were not copied before 21.0.0",
        *("gunicorn", "20.0.0", "20.1.0"),
        upstream=(Replacement("list(root.manager.loggerDict.keys())", "root.manager.loggerDict.keys()"),),
        file="gunicorn/glogging.py",
    ),
    Difference(
        "one more line was empty before 20.1.0",
        *("gunicorn", "20.0.0", "20.0.4"),
        upstream=(Replacement(FIRST, "\n" + FIRST),),
        file="gunicorn/glogging.py",
    ),
)


def differences(distribution: str, release: str) -> List[Difference]:
    return [one for one in DIFFERENCES if one.holds_in(distribution, release)]


def _replaced(text: str, replacements: Tuple[Replacement, ...], why: str) -> str:
    for newest, there in replacements:
        if newest not in text:
            raise PatchError(f"the difference “{why}” expects in the newest patch, which has it not:\n{newest}")
        text = text.replace(newest, there)
    return text


class Edit(NamedTuple):
    """A file before and after."""

    pristine: str
    patched: str


class Change(NamedTuple):
    """What a patch says and does: the newest, as a person wrote it."""

    description: str
    edits: Dict[str, Edit]  # By the names of the files

    def targets(self, distribution: str, release: str) -> Dict[str, str]:
        """The files that it is made to in another release, by their names in this one."""
        gone = {file for one in differences(distribution, release) for file in one.without}
        renamed = RENAMED.get(distribution, {})
        return {file: renamed.get(file, file) for file in self.edits if file not in gone}

    def backported(self, distribution: str, release: str, files: Dict[str, str]) -> "Change":
        """
        The same change to the files of another release.

        Raises PatchError if a difference is stale, or carried_over() finds no place for a line.
        """
        there = differences(distribution, release)
        description, edits = self.description, {}
        try:
            for one in there:
                description = _replaced(description, one.description, one.why)
            for file, target in self.targets(distribution, release).items():
                edit = self._edit(file, there)
                edits[target] = Edit(files[target], carried_over(*edit, files[target]))
        except PatchError as error:
            raise PatchError(f"{distribution} {release}: {error}") from error
        return Change(description, edits)

    def _edit(self, file: str, there: List[Difference]) -> Edit:
        """The edit of a file of the newest release, as it would be if it had these differences."""
        pristine, patched = self.edits[file]
        for one in there:
            if one.file in ("", file):
                pristine = _replaced(pristine, one.upstream, one.why)
                patched = _replaced(patched, one.change, one.why)
        return Edit(pristine, patched)


@functools.lru_cache(maxsize=None)  # Most files are the same in many releases
def carried_over(pristine: str, patched: str, other: str) -> str:
    """
    The change from pristine to patched, made to another file. Lines that the change removes are removed, and those that
    replace them go there. Other new lines go below the line that is above them, or, if the other file does not have
    that, above the one that is below them. So what else is different beside them does not matter, as it would in a
    three-way merge. Raises PatchError if the other file has neither line, or not what is to be removed.
    """
    old, new, lines = (text.splitlines(keepends=True) for text in (pristine, patched, other))
    # Where in the other file each line of pristine is, if it is there. -1 and len(old) stand for the ends of the file:
    # so every line has a neighbour
    place = {-1: -1, len(old): len(lines)}
    for block in SequenceMatcher(None, old, lines, autojunk=False).get_matching_blocks():
        place.update((block.a + i, block.b + i) for i in range(block.size))
    result: List[str] = []
    done = 0  # So many lines of the other file are in the result, or are removed
    for tag, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        # Where start is the end, lines are only added, between start - 1 and start
        at = _where_removed(place, start, end) if start < end else _where_added(place, start)
        if at is None:
            found = "".join(old[start:end] or old[start - 1 : start + 1])  # start > 0: place has -1
            raise PatchError(f"the file has not, or not as one piece, what the patch changes:\n{found}")
        result += lines[done:at] + new[new_start:new_end]
        done = at + end - start
    return "".join(result + lines[done:])


def _where_removed(place: Dict[int, int], start: int, end: int) -> Optional[int]:
    """Where the lines from start to end are; they must all be there, and together, or something else goes with them."""
    at = place.get(start)
    together = at is not None and all(place.get(line) == at + line - start for line in range(start, end))
    return at if together else None


def _where_added(place: Dict[int, int], start: int) -> Optional[int]:
    """Where lines go that are added above start: below its upper neighbour, if that is there, or else above it."""
    return place[start - 1] + 1 if start - 1 in place else place.get(start)
