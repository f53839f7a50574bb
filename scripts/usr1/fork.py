"""
The forks: a published release with the patch in it, as a wheel of version X.Y.Z+usr1.N.

The pristine release is a build requirement, so the user's own installer fetches it, with the
user's own settings. Runs in users' build environments: Python 3.6 and later, whatthepatch 1.0.2
and later (https://peps.python.org/pep-0517/ has the hooks).
"""

import os
import re
import sys
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from usr1 import patches, wheel

ConfigSettings = Optional[Dict[str, Any]]


def releases(distribution: str) -> List[str]:
    """Every release that has a patch, oldest first."""
    every = (release for patch in patches.catalogue(distribution) for release in patch.releases)
    return sorted(every, key=_numbers)


def _numbers(release: str) -> Tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)))


def find(distribution: str, release: str) -> patches.Patch:
    """The patch pinned to a release; raises PatchError, naming those that have one."""
    patch = patches.find(distribution, release)
    if patch is None:
        every = ", ".join(releases(distribution))
        raise patches.PatchError(f"{distribution}: no patch for version {release}; expected one of {every}")
    return patch


def header(patch: patches.Patch) -> Message:
    """The fields of a patch's DEP-3 header."""
    return HeaderParser().parsestr(patch.path.read_bytes().decode().partition("\n--- ")[0])


def requirement(distribution: str, release: Optional[str]) -> str:
    """
    What to ask the installer for; by default the newest release with a patch for its Python.

    An index may hold the forks as well, which == and <= take for the releases they were made
    from: hence === and !=.
    """
    if release:
        find(distribution, release)
        return f"{distribution}==={release}"
    every = releases(distribution)
    forks = (f"!={every[-1]}+usr1.{n + 1}" for n in range(find(distribution, every[-1]).revision))
    return ",".join([f"{distribution}>={every[0]},<={every[-1]}", *forks])


def fork(distribution: str, files: wheel.Files, release: Optional[str] = None) -> wheel.Files:
    """
    The files of a pristine release, patched and renamed; everything else stays as it is.

    Raises PatchError if they are not those of the release asked for, or of none that has a patch.
    """
    info = wheel.dist_info(files)
    found = info[len(distribution) + 1 : -len(".dist-info")]
    if release and found != release:
        raise patches.PatchError(f"expected {distribution} {release} among the build requirements, found {found}")
    patch = find(distribution, found)
    version = f"{found}+usr1.{patch.revision}"
    forked = dict(files)
    forked[patch.target] = patch.apply(files[patch.target])
    url = f"Project-URL: Patch set uvicorn-usr1, {header(patch)['Bug']}"
    _set(forked, f"{info}/METADATA", "Version", f"{version}\n{url}")
    _set(forked, f"{info}/WHEEL", "Generator", "uvicorn-usr1")
    new = f"{wheel.escape(distribution)}-{version}.dist-info"
    return {name.replace(info, new, 1): data for name, data in forked.items()}


def _set(files: wheel.Files, name: str, field: str, value: str) -> None:
    files[name] = re.sub(rf"(?m)^{field}: .*$", f"{field}: {value}", files[name].decode(), count=1).encode()


class Backend:
    """The build backend (PEP 517) of one distribution; errors end the hook with one message."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution
        self.variable = wheel.escape(distribution).upper() + "_USR1_VERSION"

    def _version(self, config_settings: ConfigSettings) -> Optional[str]:
        return (config_settings or {}).get("version") or os.environ.get(self.variable)

    def get_requires_for_build_wheel(self, config_settings: ConfigSettings = None) -> List[str]:
        try:
            return [requirement(self.distribution, self._version(config_settings))]
        except patches.PatchError as error:
            sys.exit(f"{error} (-C version=X.Y.Z or {self.variable}=X.Y.Z chooses it)")

    def build_wheel(
        self, wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: Optional[str] = None
    ) -> str:
        try:
            files = wheel.installed(self.distribution, sys.path)
            forked = fork(self.distribution, files, self._version(config_settings))
            return wheel.pack(forked, Path(wheel_directory)).name
        except (patches.PatchError, wheel.WheelError) as error:
            sys.exit(str(error))

    def build_sdist(self, sdist_directory: str, config_settings: ConfigSettings = None) -> NoReturn:
        sys.exit(f"the fork of {self.distribution} is built from the whole repository: no sdist, only a wheel")

    def build_editable(
        self, wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: Optional[str] = None
    ) -> NoReturn:
        sys.exit(
            f"the fork of {self.distribution} has no source tree to edit here: "
            f"scripts/build-fork.sh --distribution {self.distribution} --checkout VERSION DIR makes one"
        )
