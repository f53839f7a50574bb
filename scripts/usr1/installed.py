"""
The distributions installed in an environment, identified by the hash of the file that a patch is for.

What cannot be patched or put back is not an exception but a state with a problem: --check tells it,
applying raises it.
"""

import enum
import json
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
    def directories(self) -> Tuple[Path, Path, Path]:
        """Where a change writes."""
        return self.file.parent, self.file.parent / "__pycache__", self.record.parent


def find(environment: Environment) -> List[Installed]:
    """Every distribution there that patches exist for; one that is MISSING if there is none."""
    found = [_look(environment, distribution) for distribution in patches.DISTRIBUTIONS]
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
    return [path for directory in installed.directories for path in sorted(directory.glob(f".*{UNFINISHED}"))]


def _dist_infos(site_packages: Path, distribution: str) -> List[Path]:
    def normalized(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    paths = sorted(site_packages.glob("*.dist-info"))
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
    if len(dist_infos) > 1:
        return _broken(
            environment, distribution, None, "one dist-info directory", " and ".join(path.name for path in dist_infos)
        )
    [dist_info] = dist_infos
    version = _version(dist_info)
    if version is None:
        return _broken(environment, distribution, None, f"a Version in {dist_info}/METADATA", "none")
    fork = _FORK.fullmatch(version)
    release = fork["release"] if fork else version
    patch = patches.find(distribution, release)
    if patch is None:
        return _unsupported(environment, distribution, version)
    return _identify(environment, Installed(distribution, State.CHANGED, None, version, patch), dist_info)


def _identify(environment: Environment, installed: Installed, dist_info: Path) -> Installed:
    patch, version = installed.patch, installed.release
    assert patch is not None
    name, broken = installed.distribution, (environment, installed.distribution, version)
    try:
        recorded = (dist_info / "RECORD").read_bytes()
    except OSError as error:
        return _broken(*broken, "a RECORD of the installed files", str(error))
    line = record.line(recorded, patch.target)
    if line is None:
        if _editable(dist_info):
            return _outside(environment, name, version, f"an editable install, see {dist_info}/direct_url.json")
        return _broken(*broken, f"one line for {patch.target} in {dist_info}/RECORD", "none, or several")
    file = environment.site_packages / patch.target
    if file.is_symlink() or file.parent.resolve() != environment.site_packages.resolve() / patch.target.split("/")[0]:
        return _outside(environment, name, version, f"{file}, a link to {file.resolve()}")
    try:
        content = file.read_bytes()
    except OSError as error:
        return _broken(*broken, f"the file {file}", str(error))

    installed = installed._replace(file=file, content=content, record=dist_info / "RECORD")
    sha256 = patches.sha256(content)
    if sha256 == patch.pristine_sha256 and not _FORK.fullmatch(version):
        known, state = None, State.PRISTINE
    else:
        known = next((one for one in _applicable(patch) if one.patched_sha256 == sha256), None)
        state = State.FORK if _FORK.fullmatch(version) else State.PATCHED
    if known is None and state is not State.PRISTINE:
        return installed._replace(problem=_changed(environment, installed))
    one_of_ours = {record.digest(patch.pristine_sha256)}
    one_of_ours.update(record.digest(one.patched_sha256) for one in _applicable(patch))
    if line.digest not in ("", *one_of_ours):
        return _broken(*broken, f"{record.digest(sha256)} for {patch.target} in {dist_info}/RECORD", line.digest)
    finished = line.digest in ("", record.digest(sha256)) and not leftovers(installed)
    note = f"{(known or patch).path.relative_to(patches.PATCHES.parent)}, revision {(known or patch).revision}"
    return installed._replace(state=state, applied=known, finished=finished, note=note)


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
        return _outside(environment, name, "", origin)
    problem = refusal(
        f"{name} is not installed in {environment.path}",
        " or ".join(patches.DISTRIBUTIONS),
        f"neither, in {environment.site_packages}",
        environment.pip(f"install '{name}[standard]' gunicorn"),
    )
    return Installed(name, State.MISSING, problem)


def _outside(environment: Environment, distribution: str, version: str, found: str) -> Installed:
    problem = refusal(
        f"{distribution} lives outside {environment.path}, where others may use it",
        f"its files in {environment.site_packages}",
        found,
        environment.reinstall(f"{distribution}{version and '==' + version}"),
    )
    return Installed(distribution, State.OUTSIDE, problem, version, note=found)


def _broken(
    environment: Environment, distribution: str, version: Optional[str], expected: str, found: str
) -> Installed:
    requirement = f"{distribution}=={version}" if version else f"{distribution}==VERSION"
    problem = refusal(
        f"the installation of {distribution} in {environment.path} is broken",
        expected,
        found,
        f"{environment.reinstall(requirement)}, then run this again",
    )
    return Installed(distribution, State.BROKEN, problem, version or "", note=f"expected {expected}; found {found}")


def _unsupported(environment: Environment, distribution: str, version: str) -> Installed:
    supported = _supported(distribution)
    try:
        below = [one for one in supported if one < Version(version)][-1:]
        nearest = " and ".join(map(str, below + [one for one in supported if one > Version(version)][:1]))
    except InvalidVersion:
        nearest = str(supported[-1])
    install = environment.pip(f"install {distribution}=={nearest.split()[-1]}")
    problem = refusal(
        f"no patch is pinned to {distribution} {version}",
        f"one of {len(supported)} releases from {supported[0]} to {supported[-1]}, the nearest: {nearest}",
        f"{version} in {environment.site_packages}",
        f"{install}, then run this again",
    )
    return Installed(distribution, State.UNSUPPORTED, problem, version, note=f"the nearest: {nearest}")


def _supported(distribution: str) -> List[Version]:
    return sorted(Version(one) for patch in patches.catalogue(distribution) for one in patch.releases)


def _changed(environment: Environment, installed: Installed) -> Refusal:
    patch = installed.patch
    assert patch is not None
    sha256 = patches.sha256(installed.content)
    return refusal(
        f"{installed.file} was changed by hand",
        f"the file of {installed.distribution} {installed.release}, SHA-256 {patch.pristine_sha256}"
        f" (or patched, {patch.patched_sha256})",
        f"SHA-256 {sha256}",
        f"{environment.reinstall(f'{installed.distribution}=={installed.release}')}, then run this again",
    )
