"""
Changing installed files as a package manager does: whole or not at all, whenever it is killed.

Every new file is written beside the old one, synced, and renamed over it only when all of them
are there. Writing in place would also write to the caches of uv and conda and to the other
environments that share the file by hard links. The sources are renamed last: until then something
UNFINISHED tells the next run to do it all again, which is as good as once.

Their bytecode is removed before, for good: some is never checked against the source (PEP 552), and
Python writes anew what it misses. RECORD goes on listing it: pip and uv do not mind that it is gone.
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from usr1 import record
from usr1.environment import Environment
from usr1.installed import UNFINISHED, Installed, leftovers
from usr1.refusal import HalfDone, Refusal, refusal

Wanted = List[Tuple[Installed, Dict[Path, bytes]]]  # What the files of each are to hold


class Before(NamedTuple):
    content: bytes
    status: os.stat_result


class Staged(NamedTuple):
    new: Dict[Path, Path]  # The file that is to be renamed over each
    before: Dict[Path, Before]


@contextlib.contextmanager
def alone(environment: Environment, say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other run works on the environment, and keep others waiting. Nothing is left behind."""
    try:
        directory = os.open(environment.site_packages, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(directory, environment, say)
        except BaseException:
            os.close(directory)
            raise
    except OSError as error:
        raise _obstructed(environment, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # It is closed anyway
            os.close(directory)


def _lock(directory: int, environment: Environment, say: Callable[[str], None]) -> None:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another run on {environment.path} to end ...")
        fcntl.flock(directory, fcntl.LOCK_EX)


def make(environment: Environment, wanted: Wanted) -> None:
    """
    Give the files of distributions new contents, all or none.

    Raises Refusal if something is in the way and nothing was changed, HalfDone if something was and stays so.
    """
    todo = [(one, contents) for one, contents in wanted if contents != one.contents or not one.finished]
    staged = Staged({}, {})
    try:
        for installed, contents in todo:
            _stage(installed, contents, staged)
        _commit([installed for installed, _ in todo], staged)
    except BaseException as error:
        _undo(environment, staged)
        if isinstance(error, OSError):
            raise _obstructed(environment, error) from error
        raise


def _stage(installed: Installed, contents: Dict[Path, bytes], staged: Staged) -> None:
    lines = installed.record.read_bytes()
    for file in installed.files:
        _replace(staged, file.path, contents[file.path])
        line = record.line(lines, file.target)
        assert line is not None
        lines = line.rewritten(contents[file.path])
    _replace(staged, installed.record, lines)


def _replace(staged: Staged, path: Path, content: bytes) -> None:
    staged.before[path] = Before(path.read_bytes(), path.stat())
    staged.new[path] = _write(path, content, staged.before[path].status)


def _write(path: Path, content: bytes, like: os.stat_result) -> Path:
    """A synced file beside path, to be renamed over it, with the mode and the owner of another."""
    descriptor, name = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
            file.flush()
            os.fsync(descriptor)
        if Path(name).read_bytes() != content:
            raise OSError(errno.EIO, "what was read back is not what was written", name)
    except BaseException:
        _discard([Path(name)])
        raise
    return Path(name)


def _commit(changed: List[Installed], staged: Staged) -> None:
    bytecode = [path for installed in changed for path in installed.bytecode]
    for path in bytecode:
        path.unlink()
    _sync(bytecode)
    sources = [path for installed in changed for path in installed.contents]
    for path in sorted(staged.new, key=sources.__contains__):
        staged.new[path].replace(path)
    _sync(staged.before)
    for installed in changed:
        _discard(leftovers(installed))


def _sync(paths: Iterable[Path]) -> None:
    """Bring the renames into these paths' directories to disk."""
    for directory in sorted({path.parent for path in paths}):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _undo(environment: Environment, staged: Staged) -> None:
    """Put back what was replaced, times included, because bytecode goes by them."""
    try:
        replaced = [path for path, before in staged.before.items() if not _still(path, before)]
        back = {path: _write(path, *staged.before[path]) for path in replaced}
        for path, old in back.items():
            status = staged.before[path].status
            os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
            old.replace(path)
        _sync(replaced)
    except OSError as error:
        raise HalfDone(
            f"a change of {environment.path} failed half-way and could not be undone: {error}\n"
            "  do:       run this again, which finishes it, or the same with --revert, which undoes it"
        ) from error
    _discard(staged.new.values())


def _still(path: Path, before: Before) -> bool:
    return path.exists() and path.stat().st_ino == before.status.st_ino


def _discard(paths: Iterable[Path]) -> None:
    """Remove our own temporary files; the next run removes what this cannot."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _obstructed(environment: Environment, error: OSError) -> Refusal:
    owner, user = environment.path.stat().st_uid, os.getuid()
    as_whom = f"run this again as user {owner}, or as root" if owner != user else "run this again as root"
    again = {
        errno.EACCES: as_whom if owner != user else "make it writable, then run this again",
        errno.EPERM: f"{as_whom}; or see lsattr(1)",
        errno.EROFS: "mount it writable, then run this again",
        errno.ENOSPC: "make room there, then run this again",
        errno.EDQUOT: "make room there, then run this again",
    }
    return refusal(
        f"cannot change {environment.path}; nothing was changed",
        f"to write in {environment.site_packages}",
        f"{error} (as user {user}; it belongs to user {owner})",
        again.get(error.errno or 0, "mend the file system, then run this again"),
    )
