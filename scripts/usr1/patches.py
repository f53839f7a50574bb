"""
The patch files of this repository.

A patch is a unified diff under a DEP-3 header (https://dep-team.pages.debian.net/deps/dep3/).
The header is the only catalogue: it names the releases that the patch is pinned to,
and the SHA-256 of each file before and after. Where releases differ only elsewhere in these files,
one patch file is for all of them: its header has a group of the fields in PINNED for each state of the files.
"""

import hashlib
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

PATCHES = Path(__file__).resolve().parents[2] / "patches"
DISTRIBUTIONS = ("uvicorn", "uvicorn-worker", "gunicorn")

#: The files of the earlier revisions that are kept.
SUPERSEDED = "superseded/*.patch"

#: The fields that a header has once for each state of the files, the oldest first; it has all others once.
PINNED = ("Applies-To", "Pristine-SHA256", "Patched-SHA256")

#: A hash of all that is in the wheel of each release, and that of the wheel which its fork is: as sha256sum has it.
PUBLISHED, FORKS = "published.sha256", "forks.sha256"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class PatchError(Exception):
    """A patch file is malformed, or was given bytes other than those it is pinned to."""


class Part(NamedTuple):
    """What a patch does to one file."""

    target: str  # The file, as RECORD names it
    pristine_sha256: str
    patched_sha256: str
    text: str  # Its diff

    def apply(self, pristine: bytes) -> bytes:
        """The patched bytes; raises PatchError unless both sides hash to what the header says, as revert does."""
        return self._change(pristine, self.pristine_sha256, self.patched_sha256, reverse=False)

    def revert(self, patched: bytes) -> bytes:
        return self._change(patched, self.patched_sha256, self.pristine_sha256, reverse=True)

    def _change(self, before: bytes, expected: str, result: str, reverse: bool) -> bytes:
        if sha256(before) != expected:
            raise PatchError(f"{self.target} has SHA-256 {sha256(before)}, expected {expected}")
        after = self._applied(before.decode(), reverse).encode()
        if sha256(after) != result:
            raise PatchError(f"{self.target}: the result has SHA-256 {sha256(after)}, expected {result}")
        return after

    def _applied(self, before: str, reverse: bool) -> str:
        """
        What the diff makes of a text: each hunk goes where its old lines are, after the hunk before it.

        Of several such places it is the one nearest to the line number, moved as the hunk before it was.
        Raises PatchError if there is none.
        """
        number, old, new = (2, " +", " -") if reverse else (1, " -", " +")
        lines, after, done, offset = before.split("\n"), [], 0, 0
        for hunk in re.finditer(r"(?m)^@@ -(\d+)\S* \+(\d+)\S* @@.*\n((?:[-+ \\].*\n)*)", self.text):
            gone, come = ([line[1:] for line in hunk[3].split("\n")[:-1] if line[0] in side] for side in (old, new))
            expected = int(hunk[number]) - 1 + offset
            places = range(done, len(lines) - len(gone) + 1)
            found = [place for place in places if lines[place : place + len(gone)] == gone]
            if not found:
                raise PatchError(f"{self.target} does not have, or not in this order, the lines:\n" + "\n".join(gone))
            place = min(found, key=lambda place: abs(place - expected))
            after += lines[done:place] + come
            done, offset = place + len(gone), offset + place - expected
        return "\n".join(after + lines[done:])


class Patch(NamedTuple):
    """What a patch file is for one state of the files that it changes."""

    path: Path
    distribution: str
    releases: Tuple[str, ...]
    revision: int
    parts: Tuple[Part, ...]
    header: str
    text: str

    @property
    def pristine(self) -> Dict[str, str]:
        """The hash of each file before."""
        return {part.target: part.pristine_sha256 for part in self.parts}

    @property
    def patched(self) -> Dict[str, str]:
        """The hash of each file after."""
        return {part.target: part.patched_sha256 for part in self.parts}


def read(path: Path) -> List[Patch]:
    """Parse one patch file, for each state of its files; raises PatchError if a header field or the diff is missing."""
    return parse(path, path.read_bytes().decode())


def parse(path: Path, text: str) -> List[Patch]:
    """The patches that a file would be with this text; raises PatchError likewise."""
    files = list(re.finditer(r"^--- a/\S+\n\+\+\+ b/(\S+)\n", text, re.MULTILINE))
    if not files:
        raise PatchError(f"{path}: no unified diff in it")
    header, diff = text[: files[0].start()], text[files[0].start() :]
    ends = [*(file.start() for file in files[1:]), len(text)]
    texts = [text[file.start() : end] for file, end in zip(files, ends)]
    fields = HeaderParser().parsestr(header)
    revision = fields["Revision"] or ""
    states = [[value.split() for value in fields.get_all(name, [])] for name in PINNED]
    if not (revision.isdigit() and all(states) and all(states[0]) and len(set(map(len, states))) == 1):
        raise PatchError(f"{path}: {', '.join(PINNED)} or Revision is missing")
    found = []
    for (distribution, *names), pristine, patched in zip(*states):
        if not len(files) == len(pristine) == len(patched):
            raise PatchError(f"{path}: {len(files)} files, but {len(pristine)} and {len(patched)} hashes of them")
        parts = tuple(map(Part, (file[1] for file in files), pristine, patched, texts))
        found.append(Patch(path, distribution, tuple(names), int(revision), parts, header, diff))
    return found


def catalogue(distribution: str, files: str = "*.patch") -> List[Patch]:
    """Every patch for a distribution, ordered by file name, and in a file the oldest first."""
    return [patch for path in sorted((PATCHES / distribution).glob(files)) for patch in read(path)]


def releases(distribution: str) -> List[str]:
    """Every release that a patch is pinned to, oldest first."""
    return sorted((release for patch in catalogue(distribution) for release in patch.releases), key=numbers)


def numbers(version: str) -> List[int]:
    """What to compare versions by."""
    return [int(number) for number in re.findall(r"\d+", version)]


def published(distribution: str) -> Dict[str, str]:
    """For each release a hash of all files of its wheel: see wheel.digest()."""
    lines = (PATCHES / distribution / PUBLISHED).read_text(encoding="ascii").splitlines()
    return {release: digest for digest, release in (line.split() for line in lines)}


def find(distribution: str, release: str) -> Optional[Patch]:
    return next((patch for patch in catalogue(distribution) if release in patch.releases), None)
