"""
As which user the tests run what is installed in an environment.

They run whatever a module, a .pth file or sitecustomize.py says, which is code of everyone who may write to one of
them, or to a directory that leads there. So root has another user run the tests: the owner of the environment, or
nobody. Only where that user cannot read what it takes, such as a Python below root's home, does root run them itself,
and only if nobody else can have written any of it.
"""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from usr1.apply.environment import Environment, named_by_pth
from usr1.apply.screen import plain, say
from usr1.refusal import refusal

NOBODY = 65534
LINKS = 40  # As many as the kernel follows

#: Says what is missing; isolated from where it is run, and from the variables of whoever runs it.
PROBE = """
import os, subprocess, sys
import pytest
python, *needed = sys.argv[1:]
for path in needed:
    if not os.access(path, os.R_OK):
        sys.exit(f"cannot read {path}")
sys.exit(subprocess.call([python, "-I", "-B", "-W", "ignore", "-c", "import gunicorn"]))
"""


class User(NamedTuple):
    name: str
    number: int
    group: int
    groups: List[int]

    def become(self) -> None:
        os.setgroups(self.groups)
        os.setgid(self.group)
        os.setuid(self.number)


def choose(environment: Environment, needed: Sequence[Path]) -> Optional[User]:
    """Whom to become for the tests, none to stay who this is, and says so; raises Refusal if neither may be."""
    if os.geteuid() != 0:
        return None
    user = _unprivileged(os.stat(environment.path).st_uid)
    hindrance = _hindrance(user, environment, [*needed, Path(tempfile.gettempdir())])
    if not hindrance:
        say(f"  tested as user {user.name}")
        return user
    strange = next(filter(None, (_strange(*place) for place in code(environment))), "")
    if not strange:
        say(f"  tested as root, who alone may write to what is run; as user {user.name}: {hindrance}")
        return None
    mend = "let that user read it, or leave nobody but root the right to write to it (chown, chmod)"
    raise refusal(
        f"{environment.path} cannot be tested as user {user.name}, and is not for root to run",
        f"what user {user.name} may read, or what nobody but root may write to",
        f"as user {user.name}: {hindrance}; {strange}",
        f"{mend if user.number == NOBODY else f'run this as user {user.name}'}; or patch without tests: --no-tests",
    )


def _unprivileged(owner: int) -> User:
    number = owner or NOBODY
    try:
        entry = pwd.getpwuid(number)
    except KeyError:
        return User(str(number), number, NOBODY, [])
    return User(entry.pw_name, number, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid))


def _hindrance(user: User, environment: Environment, needed: Sequence[Path]) -> str:
    """Why a user cannot run the tests; nothing if that is possible."""
    try:
        # In a session of its own: nothing is typed into root's terminal.
        answer = subprocess.run(
            [sys.executable, "-I", "-c", PROBE, *map(str, [environment.python, *needed])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd="/", start_new_session=True, preexec_fn=user.become,
        )  # fmt: skip
    except PermissionError as error:
        return str(error)
    except subprocess.SubprocessError:  # As in a container without CAP_SETUID
        return "root cannot become that user here"
    return plain(answer.stdout.strip().rpartition(b"\n")[2]) if answer.returncode != 0 else ""


def code(environment: Environment) -> Iterator[Tuple[str, bool]]:
    """
    What the environment's interpreter may run, and each directory and link that leads there.

    And whether code of whoever may only add to that directory, as anybody to /tmp, may be run.
    """
    inside = (environment.path / name for name in ("bin", "lib", "lib64", "pyvenv.cfg"))
    todo = [str(path) for path in (*inside, environment.python, *_libraries(environment), *environment.seen)]
    seen = set()
    while todo:
        path = todo.pop()
        yield from _way(path)
        path = os.path.realpath(path)
        if path in seen:
            continue
        seen.add(path)
        for directory, directories, names in os.walk(path):
            yield directory, True
            is_site = os.path.basename(directory) in ("site-packages", "dist-packages")
            for name in (*directories, *names):
                one = os.path.join(directory, name)
                if os.path.islink(one):
                    todo.append(one)
                else:
                    yield one, True
                if is_site and name.endswith(".pth") and os.path.isfile(one):
                    text = Path(one).read_text("utf-8-sig", "surrogateescape")
                    todo += map(str, named_by_pth(text, Path(directory)))


def _libraries(environment: Environment) -> Iterator[Path]:
    """The standard library, and the interpreter if it is a shared library."""
    for prefix in environment.prefixes:
        for library in (prefix / "lib", prefix / "lib64"):
            yield library / environment.site_packages.parent.name
            yield from library.glob("libpy*.so*")


def _way(path: str) -> Iterator[Tuple[str, bool]]:
    """Each directory and link on the way to a file, and the file. Where there is none, it is added to a directory."""
    place, rest, links = "/", path.split("/"), 0
    yield place, False
    while rest and links <= LINKS:
        parent, place = place, os.path.normpath(os.path.join(place, rest.pop(0)))
        if not os.path.lexists(place):
            yield parent, True
            return
        yield place, False
        if os.path.islink(place):
            links += 1
            target = os.readlink(place)
            place, rest = "/" if target.startswith("/") else parent, target.split("/") + rest


def _strange(path: str, adding: bool) -> str:
    """Who but root may write to a path, if anybody; an access control list shows in the group's bits."""
    try:
        status = os.lstat(path)
    except OSError:
        return ""  # Only who may write to where it was could make it go
    if status.st_uid != 0:
        return f"{path} belongs to user {status.st_uid}"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and not adding
    if stat.S_ISLNK(status.st_mode) or sticky or not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return ""
    return f"others may write to {path} (mode {stat.S_IMODE(status.st_mode):o})"
