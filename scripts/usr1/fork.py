"""
The forks: a published release with the patch in it, as a wheel of version X.Y.Z+usr1.N.

The pristine release is a build requirement, so the user's own installer fetches it, with the
user's own settings. Runs in users' build environments: Python 3.6 and later, whatthepatch 1.0.2
and later (https://peps.python.org/pep-0517/ has the hooks).
"""

import difflib
import os
import re
import sys
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from usr1 import patches, wheel
from usr1.patches import Patch, PatchError
from usr1.refusal import Refusal, refusal

ConfigSettings = Optional[Dict[str, Any]]


def releases(distribution: str) -> List[str]:
    """Every release that has a patch, oldest first."""
    every = (release for patch in patches.catalogue(distribution) for release in patch.releases)
    return sorted(every, key=_numbers)


def _numbers(release: str) -> Tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)))


def find(distribution: str, release: str) -> Patch:
    """The patch pinned to a release; raises Refusal if there is none."""
    patch = patches.find(distribution, release)
    if patch is None:
        every = releases(distribution)
        raise refusal(
            f"no patch is pinned to {distribution} {release}",
            f"one of the {len(every)} releases from {every[0]} to {every[-1]} named in patches/{distribution}/*.patch",
            release,
            f"choose one of them (for pip: -C version={every[-1]}, for example)",
        )
    return patch


def header(patch: Patch) -> Message:
    """The fields of a patch's DEP-3 header."""
    return HeaderParser().parsestr(patch.path.read_bytes().decode().partition("\n--- ")[0])


def variable(distribution: str) -> str:
    """The environment variable that chooses the release, for tools that pass no config settings."""
    return wheel.escape(distribution).upper() + "_USR1_VERSION"


def requirement(distribution: str, release: Optional[str]) -> str:
    """
    What to ask the installer for; by default the newest release with a patch for its Python.

    An index may hold the forks as well, which == and <= take for the releases they were made
    from: hence === and !=. Raises Refusal if the release has no patch.
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

    Raises Refusal if they are not those of the release asked for, or of none that has a patch.
    """
    info = wheel.dist_info(files)
    found = info[len(distribution) + 1 : -len(".dist-info")]
    if release and found != release:
        do = "build with isolation, so that the installer fetches it"
        raise refusal(f"{distribution} in the build environment is another release", release, found, do)
    patch = find(distribution, found)
    version = f"{found}+usr1.{patch.revision}"
    forked = dict(files)
    forked[patch.target] = _patched(patch, found, files[patch.target])
    url = f"Project-URL: Patch set uvicorn-usr1, {header(patch)['Bug']}"
    _set(forked, f"{info}/METADATA", "Version", f"{version}\n{url}")
    _set(forked, f"{info}/WHEEL", "Generator", "uvicorn-usr1")
    new = f"{wheel.escape(distribution)}-{version}.dist-info"
    return {name.replace(info, new, 1): data for name, data in forked.items()}


def _patched(patch: Patch, release: str, pristine: bytes) -> bytes:
    try:
        return patch.apply(pristine)
    except PatchError as error:
        raise refusal(
            f"{patch.target} is not the one of {patch.distribution} {release} as published",
            f"SHA-256 {patch.pristine_sha256}",
            f"SHA-256 {patches.sha256(pristine)}",
            f"look at the index that it came from ({error})",
        ) from error


def _set(files: wheel.Files, name: str, field: str, value: str) -> None:
    files[name] = re.sub(rf"(?m)^{field}: .*$", f"{field}: {value}", files[name].decode(), count=1).encode()


class Backend:
    """The build backend (PEP 517) of one distribution; a refusal ends the hook with its message alone."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution

    def _release(self, config_settings: ConfigSettings) -> Optional[str]:
        settings = dict(config_settings or {})
        version = settings.pop("version", None)
        if version == "":
            raise self._mistaken("version=")
        # Installers hand the settings of one command to every package that it builds, so others than
        # ours are none of our business, but for those that somebody must have meant for us.
        for name, value in settings.items():
            near = difflib.get_close_matches(name.lower(), ["version", "--version"], cutoff=0.85)
            if near or value in releases(self.distribution):
                raise self._mistaken(f"{name}={value}")
        return version or os.environ.get(variable(self.distribution))

    def _mistaken(self, setting: str) -> Refusal:
        newest = releases(self.distribution)[-1]
        do = f"choose a release (for pip: -C version={newest}, for example), or leave the setting out for the newest"
        return refusal(f"a setting for {self.distribution} makes no sense", "version=X.Y.Z", setting, do)

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
        sys.exit(
            f"The fork of {self.distribution} has no source tree here to edit: "
            f"scripts/build-fork.sh --distribution {self.distribution} --checkout VERSION DIR makes one"
        )
