"""
The distributions installed in an environment, identified by the hash of the file that a patch is for.

What cannot be patched or put back is not an exception but a state with a problem: --check tells it,
applying raises it.
"""

import enum
import fnmatch
import json
import os
import re
import subprocess
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from packaging.version import InvalidVersion, Version

from usr1 import patches, record
from usr1.environment import Environment
from usr1.patches import Patch
from usr1.refusal import Refusal, refusal

#: How a file ends that is to be renamed over another, or was left behind by a run that was killed.
UNFINISHED = ".usr1-new"

_FORK = re.compile(r"(?P<release>.+)\+usr1\.(?P<revision>\d+)")


class State(enum.Enum):
    PRISTINE = "pristine"
    PATCHED = "patched"
    FORK = "fork"
    CHANGED = "changed by hand"
    UNSUPPORTED = "unsupported release"
    BROKEN = "broken installation"
    OUTSIDE = "outside the environment"
    MISSING = "not installed"


def release_of(version: str) -> str:
    """The release that a version is, or that a fork of this version was made from."""
    return version.partition("+")[0]


class Installed(NamedTuple):
    distribution: str
    state: State
    problem: Optional[Refusal] = None
    release: str = ""  # As METADATA says; that of a fork has a local part
    patch: Optional[Patch] = None  # The one that is pinned to the release
    applied: Optional[Patch] = None  # The one whose result the file is: patch, or one that patch has superseded
    file: Path = Path()
    content: bytes = b""
    record: Path = Path()
    finished: bool = True  # Not so if an earlier run was killed: run again
    note: str = ""  # What --check says beside the state

    @property
    def patched(self) -> bool:
        return self.state in (State.PATCHED, State.FORK)

    @property
    def directories(self) -> Tuple[Path, Path]:
        """Where a change writes."""
        return self.file.parent, self.record.parent

    @property
    def bytecode(self) -> List[Path]:
        """What any interpreter has compiled the file to, in any way."""
        return listed(self.file.parent / "__pycache__", f"{self.file.stem}.*.pyc")

    @property
    def written(self) -> Tuple[Path, Path]:
        """What tells when it was installed or changed: uv links the file as old as it is in its cache."""
        return self.file, self.record


class Where(NamedTuple):
    """What to look at, and to name in a message."""

    environment: Environment
    distribution: str
    version: str
    dist_info: Path

    @property
    def published(self) -> str:
        return release_of(self.version)


class _Problem(Exception):
    def __init__(self, state: State, problem: Refusal, note: str) -> None:
        super().__init__(problem)
        self.state, self.refusal, self.note = state, problem, note


def find(environment: Environment) -> List[Installed]:
    """Every distribution there that patches exist for; one that is MISSING if there is none. Raises Refusal."""
    try:
        found = [_look(environment, distribution) for distribution in patches.DISTRIBUTIONS]
    except OSError as error:
        raise refusal(
            f"cannot look at {environment.path}",
            f"to read what is in {environment.site_packages}",
            str(error),
            "run this as a user who may, or mend the file system",
        ) from error
    return [installed for installed in found if installed] or [_missing(environment)]


def version(environment: Environment, distribution: str) -> Optional[str]:
    """The installed version of any distribution, or None."""
    versions = [_version(path) for path in _dist_infos(environment.site_packages, distribution)]
    return versions[0] if versions else None


def newest(distribution: str) -> str:
    """The newest release of a distribution that a patch is pinned to."""
    return str(_supported(distribution)[-1])


def leftovers(installed: Installed) -> List[Path]:
    """The files that a killed run has left."""
    return [path for directory in installed.directories for path in listed(directory, f".*{UNFINISHED}")]


def listed(directory: Path, pattern: str) -> List[Path]:
    """The files of that name, none if there is no directory; raises OSError where glob() would overlook it."""
    try:
        return sorted(directory / name for name in os.listdir(directory) if fnmatch.fnmatchcase(name, pattern))
    except FileNotFoundError:
        return []


def _dist_infos(site_packages: Path, distribution: str) -> List[Path]:
    def normalized(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    paths = listed(site_packages, "*.dist-info")
    return [path for path in paths if normalized(path.name.split("-")[0]) == distribution]


def _version(dist_info: Path) -> Optional[str]:
    try:
        metadata = (dist_info / "METADATA").read_bytes()
    except OSError:
        return None
    match = re.search(rb"^Version:[ \t]*(\S+)", metadata, re.MULTILINE)
    return match[1].decode(errors="replace") if match else None


def _look(environment: Environment, distribution: str) -> Optional[Installed]:
    dist_infos = _dist_infos(environment.site_packages, distribution)
    if not dist_infos:
        return None
    # Of several the newest: what has left them is an upgrade that was interrupted
    newest = max(dist_infos, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    version = _version(newest) or ""
    where = Where(environment, distribution, version, newest)
    try:
        if len(dist_infos) > 1:
            raise _broken(where, "one dist-info directory", " and ".join(path.name for path in dist_infos))
        if not version:
            raise _broken(where, f"a Version in {where.dist_info}/METADATA", "none")
        fork = _FORK.fullmatch(version)
        patch = patches.find(distribution, fork["release"] if fork else version)
        if patch is None:
            raise _unsupported(where)
        return _identify(where, patch, bool(fork))
    except _Problem as problem:
        return Installed(distribution, problem.state, problem.refusal, version, note=problem.note)


def _identify(where: Where, patch: Patch, fork: bool) -> Installed:
    content, line = _recorded(where, patch)
    applicable = _applicable(patch)
    sha256 = patches.sha256(content)
    applied = next((one for one in applicable if one.patched_sha256 == sha256), None)
    installed = Installed(
        where.distribution,
        State.FORK if fork else State.PATCHED if applied else State.PRISTINE,
        release=where.version,
        patch=patch,
        applied=applied,
        file=where.environment.site_packages / patch.target,
        content=content,
        record=where.dist_info / "RECORD",
        note=f"{'' if applied else 'to be patched with '}{_name(applied or patch)}",
    )
    if applied is None and (fork or sha256 != patch.pristine_sha256):
        return installed._replace(state=State.CHANGED, problem=_changed(where, patch, content), note="")
    known = {patch.pristine_sha256, *(one.patched_sha256 for one in applicable)}
    if line.digest not in ("", *map(record.digest, known)):
        raise _broken(where, f"{record.digest(sha256)} for {patch.target} in {installed.record}", line.digest)
    finished = line.digest in ("", record.digest(sha256)) and not leftovers(installed)
    return installed._replace(finished=finished)


def _recorded(where: Where, patch: Patch) -> Tuple[bytes, record.Line]:
    """The file and its line in RECORD."""
    path = where.dist_info / "RECORD"
    file = where.environment.site_packages / patch.target
    try:
        line = record.line(path.read_bytes(), patch.target)
        if _editable(where.dist_info):
            raise _outside(where, f"an editable install, see {where.dist_info}/direct_url.json")
        if line is None:
            raise _broken(where, f"one line for {patch.target} in {path}", "none, or several, or one that is malformed")
        real = os.path.realpath(file)  # Path.resolve() would raise RuntimeError for a loop
        if real != os.path.join(os.path.realpath(where.environment.site_packages), patch.target):
            raise _outside(where, f"{file}, a link to {real}")
        return file.read_bytes(), line
    except OSError as error:
        raise _broken(where, f"to read {path} and {file}", str(error)) from error


def _name(patch: Patch) -> str:
    return f"{patch.path.relative_to(patches.PATCHES.parent)}, revision {patch.revision}"


def _applicable(patch: Patch) -> List[Patch]:
    """A patch, then the others of the same pristine file, among them the earlier revisions that are kept."""
    directory = patches.PATCHES / patch.distribution
    earlier = [patches.read(path) for path in sorted(directory.glob("superseded/*.patch"))]
    others = [*patches.catalogue(patch.distribution), *earlier]
    return [patch, *(one for one in others if one.pristine_sha256 == patch.pristine_sha256)]


def _editable(dist_info: Path) -> bool:
    """As PEP 660 has it: direct_url.json says so."""
    try:
        origin = json.loads((dist_info / "direct_url.json").read_bytes())
        return bool(origin["dir_info"]["editable"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _missing(environment: Environment) -> Installed:
    name = patches.DISTRIBUTIONS[0]
    # The last resort, for the message only: what the interpreter itself would import.
    probe = "import importlib.util; spec = importlib.util.find_spec('uvicorn'); print(spec and spec.origin or '')"
    answer = subprocess.run([str(environment.python), "-I", "-c", probe], capture_output=True, timeout=60)
    origin = answer.stdout.decode(errors="replace").strip()
    if origin:
        where = Where(environment, name, "", Path())
        found = _outside(where, origin)
        if environment.site_packages in Path(origin).parents:
            found = _broken(where, f"its dist-info in {environment.site_packages}", f"{origin} alone")
        return Installed(name, found.state, found.refusal, note=found.note)
    problem = refusal(
        f"{name} is not installed in {environment.path}",
        " or ".join(patches.DISTRIBUTIONS),
        f"neither, in {environment.site_packages}",
        environment.pip(f"install '{name}[standard]' gunicorn"),
    )
    return Installed(name, State.MISSING, problem)


def _outside(where: Where, found: str) -> _Problem:
    requirement = where.distribution + (where.version and f"=={where.published}")
    problem = refusal(
        f"{where.distribution} lives outside {where.environment.path}, where others may use it",
        f"its files in {where.environment.site_packages}",
        found,
        f"{where.environment.reinstall(requirement)}, then run this again",
    )
    return _Problem(State.OUTSIDE, problem, found)


def _broken(where: Where, expected: str, found: str) -> _Problem:
    requirement = f"{where.distribution}=={where.published or 'VERSION'}"
    problem = refusal(
        f"the installation of {where.distribution} in {where.environment.path} is broken",
        expected,
        found,
        f"{where.environment.reinstall(requirement)}, then run this again",
    )
    return _Problem(State.BROKEN, problem, f"expected {expected}; found {found}")


def _unsupported(where: Where) -> _Problem:
    distribution, supported = where.distribution, _supported(where.distribution)
    try:
        below = [one for one in supported if one < Version(where.version)][-1:]
        nearest = below + [one for one in supported if one > Version(where.version)][:1]
    except InvalidVersion:
        nearest = supported[-1:]
    names = " and ".join(map(str, nearest))
    install = where.environment.pip(f"install {distribution}=={nearest[-1]}")
    problem = refusal(
        f"no patch is pinned to {distribution} {where.version}",
        f"one of {len(supported)} releases from {supported[0]} to {supported[-1]}, the nearest: {names}",
        f"{where.version} in {where.environment.site_packages}",
        f"{install}, then run this again",
    )
    return _Problem(State.UNSUPPORTED, problem, f"the nearest: {names}")


def _supported(distribution: str) -> List[Version]:
    return sorted(Version(one) for patch in patches.catalogue(distribution) for one in patch.releases)


def _changed(where: Where, patch: Patch, content: bytes) -> Refusal:
    return refusal(
        f"{where.environment.site_packages / patch.target} was changed by hand",
        f"SHA-256 {patch.pristine_sha256}, as {where.distribution} {where.published} was published,"
        f" or {patch.patched_sha256}, patched",
        f"SHA-256 {patches.sha256(content)}",
        f"{where.environment.reinstall(f'{where.distribution}=={where.published}')}, then run this again",
    )
