"""
The forks: a published release with the patch in it, as a wheel of version X.Y.Z+usr1.N.

The pristine release is a build requirement, so the user's own installer fetches it, with the
user's own settings. Runs in users' build environments: standard library only, Python 3.6 and later
(https://peps.python.org/pep-0517/ has the hooks).
"""

import os
import re
import sys
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional

from usr1 import patches, wheel
from usr1.patches import Patch, PatchError
from usr1.refusal import Refusal, refusal

ConfigSettings = Optional[Dict[str, Any]]

#: Yanked: uv takes such a release only where it is pinned and nothing else is said (https://peps.python.org/pep-0592/).
WITHDRAWN = {"uvicorn": ("0.17.0",)}


def find(distribution: str, release: str) -> Patch:
    """The patch pinned to a release; raises Refusal if there is none."""
    patch = patches.find(distribution, release)
    if patch is None:
        every = patches.releases(distribution)
        raise refusal(
            f"no patch is pinned to {distribution} {release}",
            f"one of the {len(every)} releases from {every[0]} to {every[-1]} named in patches/{distribution}/*.patch",
            release,
            f"choose one of them (for pip: --config-settings version={every[-1]}, for example)",
        )
    return patch


def header(patch: Patch) -> Message:
    """The fields of a patch's DEP-3 header."""
    return HeaderParser().parsestr(patch.header)


def variable(distribution: str, what: str = "VERSION") -> str:
    """The environment variable that chooses the release, for tools that pass no config settings."""
    return f"{wheel.escape(distribution).upper()}_USR1_{what}"


def requirement(distribution: str, release: Optional[str]) -> str:
    """
    What to ask the installer for; by default the newest release with a patch for its Python.

    An index may hold the forks as well, which == and <= take for the releases they were made
    from: hence !=, as Poetry cannot read ===. Raises Refusal if the release has no patch.
    """
    every = patches.releases(distribution)
    if release in WITHDRAWN.get(distribution, ()):
        return f"{distribution}==={release}"
    newest = every[-1] if release is None else release
    forks = (f"!={newest}+usr1.{n + 1}" for n in range(find(distribution, newest).revision))
    wanted = f">={every[0]},<={newest}" if release is None else f"=={release}"
    return ",".join([distribution + wanted, *forks])


def fork(distribution: str, files: wheel.Files, release: Optional[str] = None) -> wheel.Files:
    """
    The files of a pristine release, patched and renamed; everything else stays as it is.

    Raises Refusal if they are not those of the release asked for, or of none that has a patch.
    """
    info = wheel.dist_info(files)
    found = info[len(distribution) + 1 : -len(".dist-info")]
    if release is not None and found != release:
        do = f"build with isolation, so that the installer fetches it; choose it by {variable(distribution)}, too"
        raise refusal(f"{distribution} in the build environment is another release", release, found, do)
    forked = patched(find(distribution, found), found, files)
    _as_published(distribution, found, wheel.digest(files))
    return forked


def patched(patch: Patch, release: str, files: wheel.Files) -> wheel.Files:
    """The same by a patch at hand; raises Refusal if a file is not the one that it is pinned to."""
    info, version = wheel.dist_info(files), f"{release}+usr1.{patch.revision}"
    forked = dict(files)
    for part in patch.parts:
        pristine = files[part.target]
        try:
            forked[part.target] = part.apply(pristine)
        except PatchError as error:
            raise refusal(
                f"{part.target} is not the one of {patch.distribution} {release} as published",
                f"SHA-256 {part.pristine_sha256}",
                f"SHA-256 {patches.sha256(pristine)}",
                f"look at the index that it came from ({patch.path.name}: {error})",
            ) from error
    url = f"Project-URL: Patch set uvicorn-usr1, {header(patch)['Bug']}"
    _set(forked, f"{info}/METADATA", "Version", f"{version}\n{url}")
    _set(forked, f"{info}/WHEEL", "Generator", "uvicorn-usr1")
    new = f"{wheel.escape(patch.distribution)}-{version}.dist-info"
    return {name.replace(info, new, 1): data for name, data in forked.items()}


def _as_published(distribution: str, release: str, digest: str) -> None:
    """Raises Refusal if any file of a wheel is another, unless the user has typed the hash of just those files."""
    expected, trusted = patches.published(distribution).get(release), variable(distribution, "TRUST")
    if digest not in (expected, os.environ.get(trusted)):
        raise refusal(
            f"{distribution} {release} is not the wheel that was published",
            f"SHA-256 {expected} over all of its files, as in patches/{distribution}/{patches.PUBLISHED}",
            f"SHA-256 {digest}",
            f"look at the index that it came from; if its files are to be like that, set {trusted}={digest}",
        )


def _set(files: wheel.Files, name: str, field: str, value: str) -> None:
    files[name] = re.sub(rf"(?m)^{field}: .*$", f"{field}: {value}", files[name].decode(), count=1).encode()


class Backend:
    """The build backend (PEP 517) of one distribution; a refusal ends the hook with its message alone."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution

    def _release(self, config_settings: ConfigSettings) -> Optional[str]:
        # Others are none of our business: installers hand the settings of one command to every package that it builds.
        return (config_settings or {}).get("version", os.environ.get(variable(self.distribution)) or None)

    def get_requires_for_build_wheel(self, config_settings: ConfigSettings = None) -> List[str]:
        try:
            return [requirement(self.distribution, self._release(config_settings))]
        except Refusal as error:
            sys.exit(str(error))

    def build_wheel(
        self, wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: Optional[str] = None
    ) -> str:
        try:
            files = wheel.installed(self.distribution, sys.path)
            forked = fork(self.distribution, files, self._release(config_settings))
            return wheel.pack(forked, Path(wheel_directory)).name
        except Refusal as error:
            sys.exit(str(error))

    def build_sdist(self, sdist_directory: str, config_settings: ConfigSettings = None) -> NoReturn:
        sys.exit(f"The fork of {self.distribution} is made from the whole repository: build a wheel, there is no sdist")

    def build_editable(
        self, wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: Optional[str] = None
    ) -> NoReturn:
        sys.exit(f"The fork of {self.distribution} has no source tree here to edit: install it without --editable")
