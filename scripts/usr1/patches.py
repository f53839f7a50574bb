"""
The patch files of this repository.

A patch is a unified diff under a DEP-3 header (https://dep-team.pages.debian.net/deps/dep3/).
The header is the only catalogue: it names the releases that the patch is pinned to,
and the SHA-256 of the file before and after.
"""

import hashlib
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

import whatthepatch

PATCHES = Path(__file__).resolve().parents[2] / "patches"
DISTRIBUTIONS = ("uvicorn", "uvicorn-worker")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class PatchError(Exception):
    """A patch file is malformed, or was given bytes other than those it is pinned to."""


class Patch(NamedTuple):
    path: Path
    distribution: str
    releases: Tuple[str, ...]
    revision: int
    pristine_sha256: str
    patched_sha256: str
    target: str  # The file that it changes, as RECORD names it
    header: str
    text: str

    def apply(self, pristine: bytes) -> bytes:
        """The patched bytes; raises PatchError unless both sides hash to what the header says."""
        return self._change(pristine, self.pristine_sha256, self.patched_sha256, reverse=False)

    def revert(self, patched: bytes) -> bytes:
        """The pristine bytes; raises PatchError unless both sides hash to what the header says."""
        return self._change(patched, self.patched_sha256, self.pristine_sha256, reverse=True)

    def _change(self, before: bytes, expected: str, result: str, reverse: bool) -> bytes:
        if sha256(before) != expected:
            raise PatchError(f"{self.path.name}: {self.target} has SHA-256 {sha256(before)}, expected {expected}")
        [diff] = whatthepatch.parse_patch(self.text)
        lines = whatthepatch.apply_diff(diff, before.decode(), reverse=reverse)
        after = "".join(line + "\n" for line in lines).encode()
        if sha256(after) != result:
            raise PatchError(f"{self.path.name}: the result has SHA-256 {sha256(after)}, expected {result}")
        return after


def read(path: Path) -> Patch:
    """Parse one patch file; raises PatchError if a header field or the diff is missing."""
    return parse(path, path.read_bytes().decode())


def parse(path: Path, text: str) -> Patch:
    """The patch that a file would be with this text; raises PatchError likewise."""
    match = re.search(r"^--- a/\S+\n\+\+\+ b/(\S+)\n", text, re.MULTILINE)
    if match is None:
        raise PatchError(f"{path}: no unified diff in it")
    header, diff = text[: match.start()], text[match.start() :]
    fields = HeaderParser().parsestr(header)
    try:
        distribution, *releases = fields["Applies-To"].split()
        revision = int(fields["Revision"])
        pristine, patched = fields["Pristine-SHA256"].strip(), fields["Patched-SHA256"].strip()
    except (AttributeError, TypeError, ValueError) as error:
        raise PatchError(f"{path}: Applies-To, Revision, Pristine-SHA256 or Patched-SHA256 is missing") from error
    return Patch(path, distribution, tuple(releases), revision, pristine, patched, match[1], header, diff)


def catalogue(distribution: str) -> List[Patch]:
    """Every patch for a distribution, ordered by file name."""
    return [read(path) for path in sorted((PATCHES / distribution).glob("*.patch"))]


def find(distribution: str, release: str) -> Optional[Patch]:
    """The one patch pinned to a release, or None."""
    return next((patch for patch in catalogue(distribution) if release in patch.releases), None)
