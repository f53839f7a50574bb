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
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

from usr1 import record
from usr1.apply import files
from usr1.apply.environment import Environment
from usr1.apply.files import Before, Tree
from usr1.apply.installed import UNFINISHED, Installed, bytecode, leftovers
from usr1.apply.screen import say
from usr1.refusal import HalfDone, Refusal, refusal

Wanted = List[Tuple[Installed, Dict[Path, bytes]]]  # What the files of each are to hold


class Staged(NamedTuple):
    path: Path
    before: Before
    new: Path  # To be renamed over it
    status: os.stat_result  # Of the new one


class Meanwhile(Exception):
    """Another program has changed a file since it was looked at: an installer, say."""


@contextlib.contextmanager
def alone(environment: Environment) -> Iterator[None]:
    """Wait until no other run works on the environment, and keep others waiting. Nothing is left behind."""
    with Tree(environment.path) as tree:
        try:
            directory = tree.directory(environment.site_packages)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another run on {environment.path} to end ...")
                fcntl.flock(directory, fcntl.LOCK_EX)
        except OSError as error:
            raise _obstructed(environment, error) from error
        yield


def make(environment: Environment, wanted: Wanted) -> None:
    """
    Give the files of distributions new contents, all or none.

    Raises Refusal if something is in the way and nothing was changed, HalfDone if something was and stays so.
    """
    todo = [(one, contents) for one, contents in wanted if contents != one.contents or not one.finished]
    staged: List[Staged] = []
    done: List[Staged] = []
    with Tree(environment.path) as tree:
        try:
            for installed, contents in todo:
                _stage(tree, installed, contents, staged)
            _commit(tree, [installed for installed, _ in todo], staged, done)
        except BaseException as error:
            _undo(tree, done)
            tree.discard(one.new for one in staged)
            if isinstance(error, (Meanwhile, FileNotFoundError)):
                raise _interfered(environment, error) from error
            if isinstance(error, OSError):
                raise _obstructed(environment, error) from error
            raise
    if not _all_there(environment, staged):
        raise HalfDone(
            f"another program changed {environment.path} at the same time; what is there now may be of both\n"
            "  do:       install the release that you want again, then run this again"
        )


def _stage(tree: Tree, installed: Installed, contents: Dict[Path, bytes], staged: List[Staged]) -> None:
    entries = tree.read(installed.record)
    lines = entries.content
    for file in installed.files:
        before = tree.read(file.path)
        line = record.line(lines, file.target)
        if before.content != file.content or line is None or line.digest != file.recorded:
            raise Meanwhile(f"{file.path}, or what RECORD says of it, has changed meanwhile")
        _replace(tree, file.path, before, contents[file.path], staged)
        lines = line.rewritten(contents[file.path])
    _replace(tree, installed.record, entries, lines, staged)


def _replace(tree: Tree, path: Path, before: Before, content: bytes, staged: List[Staged]) -> None:
    staged.append(Staged(path, before, *tree.write(path, before._replace(content=content), UNFINISHED)))


def _commit(tree: Tree, changed: List[Installed], staged: List[Staged], done: List[Staged]) -> None:
    compiled = [path for installed in changed for path in bytecode(tree, installed)]
    for path in compiled:
        tree.remove(path)
    tree.sync(compiled)
    sources = [path for installed in changed for path in installed.contents]
    for one in sorted(staged, key=lambda one: one.path in sources):
        if not files.same(tree.status(one.path), one.before.status):
            raise Meanwhile(f"{one.path} has changed meanwhile")
        done.append(one)
        tree.rename(one.new, one.path)
    tree.sync(one.path for one in staged)
    for installed in changed:
        tree.discard(leftovers(tree, installed))


def _undo(tree: Tree, done: List[Staged]) -> None:
    """Put back what was replaced, times included, because bytecode goes by them; not what others have replaced."""
    try:
        replaced = [one for one in done if _is(tree, one.path, one.status)]
        back = [(one, tree.write(one.path, one.before, UNFINISHED)) for one in replaced]
        for one, (old, _) in back:
            tree.set_times(old, one.before.status)
            tree.rename(old, one.path)
        tree.sync(one.path for one in replaced)
    except OSError as error:
        raise HalfDone(
            f"a change of {tree.root} failed half-way and could not be undone: {error}\n"
            "  do:       run this again, which finishes it, or the same with --revert, which undoes it"
        ) from error


def _is(tree: Tree, path: Path, status: os.stat_result) -> bool:
    try:
        return files.same(tree.status(path), status)
    except FileNotFoundError:
        return False


def _all_there(environment: Environment, staged: List[Staged]) -> bool:
    """Whether what was put into the environment is in it: a directory may have been renamed meanwhile."""
    try:
        with Tree(environment.path) as tree:
            return all(files.same(tree.status(one.path), one.status) for one in staged)
    except OSError as error:
        return error.errno == errno.EIO  # A disk that fails just now tells nothing of other programs


def _interfered(environment: Environment, what: Exception) -> Refusal:
    return refusal(
        f"another program works on {environment.path}; nothing was changed by this one",
        "the files to stay as they were found until they are replaced",
        str(what),
        "run this again when the other program has ended",
    )


def _obstructed(environment: Environment, error: OSError) -> Refusal:
    owner, user = environment.path.stat().st_uid, os.getuid()
    as_whom = f"run this again as user {owner}" if owner != user else "run this again as root"
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
