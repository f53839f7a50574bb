"""
The distributions installed in an environment, identified by the hashes of the files that a patch is for.

What cannot be patched or put back is not an exception but a state with a problem: --check tells it,
applying raises it.
"""

import contextlib
import enum
import json
import os
import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from usr1 import patches, record
from usr1.apply.environment import Environment
from usr1.apply.files import Tree
from usr1.patches import Part, Patch
from usr1.refusal import Refusal, refusal

#: How a file ends that is to be renamed over another, or was left behind by a run that was killed.
UNFINISHED = ".usr1-new"

_FORK = re.compile(r"(?P<release>.+)\+usr1\.(?P<revision>\d+)")


class State(enum.Enum):
    PRISTINE = "pristine"
    PATCHED = "patched"
    PARTLY = "partly patched"
    FORK = "fork"
    CHANGED = "changed by hand"
    UNSUPPORTED = "unsupported release"
    BROKEN = "broken installation"
    OUTSIDE = "outside the environment"
    MISSING = "not installed"


def release_of(version: str) -> str:
    """The release that a version is, or that a fork of this version was made from."""
    return version.partition("+")[0]


class File(NamedTuple):
    """One that a patch changes, or that an earlier revision has changed."""

    path: Path
    content: bytes
    recorded: str  # Its digest, as RECORD has it
    parts: Tuple[Part, ...]  # What each revision of the patch that changes it does to it
    current: Optional[Part]  # That of the current revision, if that changes it

    @property
    def target(self) -> str:
        """The file, as RECORD names it."""
        return self.parts[0].target

    @property
    def sha256(self) -> str:
        return patches.sha256(self.content)

    @property
    def published_sha256(self) -> str:
        """What its SHA-256 was when it was installed."""
        return self.parts[0].pristine_sha256

    @property
    def made_by(self) -> Optional[Part]:
        """What it is the result of; none if it is as it was published, or unknown."""
        return next((part for part in self.parts if part.patched_sha256 == self.sha256), None)

    @property
    def pristine(self) -> bytes:
        return self.made_by.revert(self.content) if self.made_by else self.content

    @property
    def patched(self) -> bytes:
        return self.current.apply(self.pristine) if self.current else self.pristine

    def is_at(self, revision: Patch) -> bool:
        """Whether its content is that revision's result, or the published one if the revision does not change it."""
        return self.sha256 == revision.patched.get(self.target, self.published_sha256)


class Installed(NamedTuple):
    distribution: str
    state: State
    problem: Optional[Refusal] = None
    release: str = ""  # As METADATA says; that of a fork has a local part
    patch: Optional[Patch] = None  # The one that is pinned to the release
    applied: Optional[Patch] = None  # The one whose result the files are: patch, or one that patch has superseded
    files: Tuple[File, ...] = ()
    record: Path = Path()
    unfinished: str = ""  # Why it is to be run again though the files are as they should be, if so
    note: str = ""  # What --check says beside the state

    @property
    def is_patched(self) -> bool:
        return self.state in (State.PATCHED, State.FORK)

    @property
    def finished(self) -> bool:
        return not self.unfinished

    @property
    def contents(self) -> Dict[Path, bytes]:
        return {file.path: file.content for file in self.files}

    @property
    def pristine(self) -> Dict[Path, bytes]:
        """What the files were when the distribution was installed."""
        return {file.path: file.pristine for file in self.files}

    @property
    def patched(self) -> Dict[Path, bytes]:
        """What the files should be."""
        return {file.path: file.patched for file in self.files}

    @property
    def written(self) -> List[Path]:
        """What tells when it was installed or changed: uv links a file as old as it is in its cache."""
        return [*self.contents, self.record]


class Where(NamedTuple):
    """What to look at, and to name in a message."""

    tree: Tree
    environment: Environment
    distribution: str
    version: str
    dist_info: Path

    @property
    def release(self) -> str:
        return release_of(self.version)


class _Problem(Exception):
    def __init__(self, state: State, problem: Refusal, note: str) -> None:
        super().__init__(problem)
        self.state, self.refusal, self.note = state, problem, note


def find(environment: Environment, only: Sequence[str] = ()) -> List[Installed]:
    """
    Every distribution there that patches exist for, or those that are asked for; MISSING if there is none.

    Raises Refusal.
    """
    with _looking(environment) as tree:
        found = {each: _look(tree, environment, each) for each in only or patches.DISTRIBUTIONS}
    missing = [_missing(environment, [distribution]) for distribution in only if not found[distribution]]
    there = [installed for installed in found.values() if installed]
    return there + missing or [_missing(environment, patches.DISTRIBUTIONS)]


def version(environment: Environment, distribution: str) -> Optional[str]:
    """The installed version of any distribution, or None; raises Refusal."""
    with _looking(environment) as tree:
        versions = [_version(tree, path) for path in _dist_infos(tree, environment.site_packages, distribution)]
    return versions[0] if versions else None


@contextlib.contextmanager
def _looking(environment: Environment) -> Iterator[Tree]:
    try:
        with Tree(environment.path) as tree:
            yield tree
    except OSError as error:
        raise refusal(
            f"cannot look at {environment.path}",
            f"to read what is in {environment.site_packages}",
            str(error),
            "run this as a user who may, or mend the file system",
        ) from error


def leftovers(tree: Tree, installed: Installed) -> List[Path]:
    """The files that a killed run has left."""
    directories = sorted({path.parent for path in installed.written})
    return [path for directory in directories for path in tree.names(directory, f".*{UNFINISHED}")]


def bytecode(tree: Tree, installed: Installed) -> List[Path]:
    """What any interpreter has compiled the files to, in any way."""
    return [
        path for file in installed.contents for path in tree.names(file.parent / "__pycache__", f"{file.stem}.*.pyc")
    ]


def _dist_infos(tree: Tree, site_packages: Path, distribution: str) -> List[Path]:
    def normalized(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    paths = tree.names(site_packages, "*.dist-info")
    return [path for path in paths if normalized(path.name.split("-")[0]) == distribution]


def _version(tree: Tree, dist_info: Path) -> Optional[str]:
    try:
        metadata = tree.read(dist_info / "METADATA").content
    except OSError:
        return None
    match = re.search(rb"^Version:[ \t]*(\S+)", metadata, re.MULTILINE)
    return match[1].decode(errors="replace") if match else None


def _look(tree: Tree, environment: Environment, distribution: str) -> Optional[Installed]:
    dist_infos = _dist_infos(tree, environment.site_packages, distribution)
    # Of several the newest: what has left them is an upgrade that was interrupted
    newest = max(dist_infos, key=lambda path: patches.numbers(path.name), default=Path())
    version = (_version(tree, newest) or "") if dist_infos else ""
    # Where METADATA has none, messages name the one in the name of the directory
    where = Where(tree, environment, distribution, version or newest.stem.partition("-")[2], newest)
    try:
        if not dist_infos:
            _look_elsewhere(where)
            return None
        if len(dist_infos) > 1:
            raise _broken(where, "one dist-info directory", " and ".join(path.name for path in dist_infos))
        _inside(where, newest / "METADATA")
        if not version:
            raise _broken(where, f"a Version in {where.dist_info}/METADATA", "none")
        fork = _FORK.fullmatch(version)
        patch = patches.find(distribution, fork["release"] if fork else version)
        if patch is None:
            raise _unsupported(where)
        return _identify(where, patch, bool(fork))
    except _Problem as problem:
        return Installed(distribution, problem.state, problem.refusal, version, note=problem.note)


def _look_elsewhere(where: Where) -> None:
    """Raises _Problem if the environment's interpreter would import it from somewhere, without its dist-info here."""
    for directory in [where.environment.site_packages, *where.environment.beyond]:
        origin = directory / where.distribution.replace("-", "_") / "__init__.py"
        if origin.exists():
            if directory == where.environment.site_packages:
                raise _broken(where, f"its dist-info in {directory}", f"{origin} alone")
            with Tree(directory) as tree:  # The same release, if it is to be installed here too
                versions = [_version(tree, path) for path in _dist_infos(tree, directory, where.distribution)]
            raise _outside(where._replace(version=next(iter(versions), None) or ""), str(origin))


def _identify(where: Where, patch: Patch, fork: bool) -> Installed:
    """Its state, by the hashes of its files; that it is a fork, its version alone says. Raises _Problem."""
    superseded = patches.catalogue(where.distribution, patches.SUPERSEDED)
    revisions = [patch, *(revision for revision in superseded if where.release in revision.releases)]
    files = _files(where, patch, revisions)
    applied = next((revision for revision in revisions if all(file.is_at(revision) for file in files)), None)
    if fork:  # By its version alone. Of which revision its files are, applied says; to apply makes them current
        state = State.FORK
    elif applied:
        state = State.PATCHED
    else:
        state = State.PRISTINE if all(file.sha256 == file.published_sha256 for file in files) else State.PARTLY
    installed = Installed(
        where.distribution,
        state,
        release=where.version,  # Not where.release, which has no local part
        patch=patch,
        applied=applied,
        files=files,
        record=where.dist_info / "RECORD",
        note=f"{'' if applied else 'its patch: '}{_name(applied or patch)}",
    )
    if not applied:
        # By hand: neither published nor made by a revision. A fork never had published files: there these count, too
        strange = [file for file in files if not file.made_by and (fork or file.sha256 != file.published_sha256)]
        if strange:
            return installed._replace(state=State.CHANGED, problem=_changed(where, strange[0], patch), note="")
    # RECORD may have no hash, or that of the file before or after any revision: patch(1) leaves the old one there
    for file in files:
        known = [file.published_sha256, *(part.patched_sha256 for part in file.parts)]
        if file.recorded not in ("", *map(record.digest, known)):
            expected = f"{record.digest(file.sha256)} for {file.target} in {installed.record}"
            raise _broken(where, expected, file.recorded)
    if leftovers(where.tree, installed):
        return installed._replace(unfinished="an earlier run was interrupted")
    if any(file.recorded not in ("", record.digest(file.sha256)) for file in files):
        return installed._replace(unfinished="RECORD has other hashes, as after patch(1)")
    return installed


def _files(where: Where, patch: Patch, revisions: Sequence[Patch]) -> Tuple[File, ...]:
    """Those that any of the revisions changes."""
    path = where.dist_info / "RECORD"
    found = []
    try:
        lines = _read(where, path)
        if _editable(where):
            raise _outside(where, f"an editable install, see {where.dist_info}/direct_url.json")
        for target in sorted({part.target for one in revisions for part in one.parts}):
            line = record.line(lines, target)
            if line is None:
                raise _broken(where, f"one line for {target} in {path}", "none, or several, or one that is malformed")
            file = where.environment.site_packages / target
            content = _read(where, file)
            _inside(where, file.parent / "__pycache__")
            parts = tuple(part for one in revisions for part in one.parts if part.target == target)
            current = next((part for part in patch.parts if part.target == target), None)
            found.append(File(file, content, line.digest, parts, current))
    except OSError as error:
        raise _broken(where, f"to read {path} and what it lists", str(error)) from error
    return tuple(found)


def _read(where: Where, path: Path) -> bytes:
    _inside(where, path)
    return where.tree.read(path).content


def _inside(where: Where, path: Path) -> None:
    """Raises _Problem if a link leads elsewhere; one that comes later stops at the descriptors of the tree."""
    real = os.path.realpath(path)  # Path.resolve() would raise RuntimeError for a loop
    if real != os.path.join(os.path.realpath(where.tree.root), path.relative_to(where.tree.root)):
        raise _outside(where, f"{path}, a link to {real}")


def _name(patch: Patch) -> str:
    return f"{patch.path.relative_to(patches.PATCHES.parent)}, revision {patch.revision}"


def _editable(where: Where) -> bool:
    """As PEP 660 has it: direct_url.json says so."""
    try:
        origin = json.loads(where.tree.read(where.dist_info / "direct_url.json").content)
        return bool(origin["dir_info"]["editable"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _missing(environment: Environment, names: Sequence[str]) -> Installed:
    wanted = "'uvicorn[standard]' gunicorn" if names[0] == "uvicorn" else names[0]
    problem = refusal(
        f"{names[0]} is not installed in {environment.path}",
        " or ".join(names),
        f"none in {environment.site_packages}",
        environment.pip(f"install {wanted}"),
    )
    return Installed(names[0], State.MISSING, problem)


def _outside(where: Where, found: str) -> _Problem:
    requirement = where.distribution + (where.version and f"=={where.release}")
    problem = refusal(
        f"{where.distribution} lives outside {where.environment.path}, where others may use it",
        f"its files in {where.environment.site_packages}",
        found,
        f"{where.environment.reinstall(requirement, copied=True)}, then run this again",
    )
    return _Problem(State.OUTSIDE, problem, found)


def _broken(where: Where, expected: str, found: str) -> _Problem:
    requirement = f"{where.distribution}=={where.release or 'VERSION'}"
    problem = refusal(
        f"the installation of {where.distribution} in {where.environment.path} is broken",
        expected,
        found,
        f"{where.environment.reinstall(requirement)}, then run this again",
    )
    return _Problem(State.BROKEN, problem, f"expected {expected}; found {found}")


def _unsupported(where: Where) -> _Problem:
    distribution, supported = where.distribution, patches.releases(where.distribution)
    version = patches.numbers(where.version)
    below = [one for one in supported if patches.numbers(one) < version][-1:]
    nearest = below + [one for one in supported if patches.numbers(one) > version][:1] if version else supported[-1:]
    names = " and ".join(nearest)
    install = where.environment.pip(f"install {distribution}=={nearest[-1]}")
    problem = refusal(
        f"no patch is pinned to {distribution} {where.version}",
        f"one of {len(supported)} releases from {supported[0]} to {supported[-1]}, the nearest: {names}",
        f"{where.version} in {where.environment.site_packages}",
        f"{install}, then run this again",
    )
    return _Problem(State.UNSUPPORTED, problem, f"the nearest: {names}")


def _changed(where: Where, file: File, patch: Patch) -> Refusal:
    patched = f"{patch.patched.get(file.target, file.published_sha256)}, patched"
    published = f"SHA-256 {file.published_sha256}, as {where.distribution} {where.release} was published"
    fork = where.version != where.release  # It has the patch: a file as it was published is wrong there
    return refusal(
        f"{file.path} was changed by hand",
        f"SHA-256 {patched}" if fork else f"{published}, or {patched}",
        f"SHA-256 {file.sha256}",
        f"{where.environment.reinstall(f'{where.distribution}=={where.release}')}, then run this again",
    )
