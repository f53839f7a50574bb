"""
Keep the patches in step with what upstream publishes.

A release whose file and server hook are those of a release that has a patch goes into the header
of that patch; for any other the nearest patch is rebased. The signal property tests run on the
release before anything is written into patches/.
"""

import argparse
import datetime
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from packaging.utils import canonicalize_version
from packaging.version import Version

from usr1 import patches, properties, releases
from usr1.patches import Patch, PatchError
from usr1.releases import ReleaseError

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "refresh"

DESCRIPTION = """\
Take releases that no patch names into patches/: all that the package index has
since the first one with a patch, or each VERSION (of uvicorn; another package's
is written uvicorn-worker==0.4.0). Where the file is as in a release that has a
patch, the header of that patch names the new one too; where it changed, the
nearest patch is rebased and shown for review. The signal property tests then
run on the release, on the Python that PYTHON names, else the tools' own. Only
when they pass on every release is anything written."""
STATUS = """\
exit status: 0 done, or nothing to do; 1 --check found releases that no patch
names, or the property tests failed; 2 wrong arguments, no such release, or no
package index; 3 a conflict, left with markers in the file that the message
names. Except with 0, patches/ is as it was."""


class NeedsHand(Exception):
    """A release that takes a person to take in; the message says where and how to go on."""


class Wanted(NamedTuple):
    distribution: str
    release: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.release}"

    @property
    def work(self) -> Path:
        """Where a person finds what could not be finished."""
        return WORK / f"{self.distribution}-{self.release}"


def published_file(distribution: str, release: str, target: str) -> bytes:
    file = releases.unpacked(distribution, release) / target
    if not file.exists():
        raise ReleaseError(f"{distribution} {release}: expected {target} in its wheel, found none; nothing to patch")
    return file.read_bytes()


def missing() -> List[Wanted]:
    """What the index has and no patch names, oldest first, from the first release with a patch on."""
    found = []
    for distribution in patches.DISTRIBUTIONS:
        named = {release for patch in patches.catalogue(distribution) for release in patch.releases}
        first = min(map(Version, named))
        for release in releases.published(distribution):
            if release not in named and Version(release) > first:
                found.append(Wanted(distribution, release))
    return found


# Writing a patch file


def _today() -> str:
    """For Last-Update: the day of SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/), else today."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.date.today().isoformat()
    return datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).date().isoformat()


def compose(like: Patch, names: List[str], revision: int, before: bytes, after: bytes) -> str:
    """The text of a patch file: the header of another one, brought up to date, and the diff."""
    header = like.path.read_bytes().decode()[: -len(like.text)]
    applies_to = " ".join(["Applies-To:", like.distribution, *names])
    for field in (
        f"Last-Update: {_today()}",
        textwrap.fill(applies_to, 78, subsequent_indent=" ", break_on_hyphens=False),
        f"Revision: {revision}",
        f"Pristine-SHA256: {patches.sha256(before)}",
        f"Patched-SHA256: {patches.sha256(after)}",
    ):
        name = field.split(":")[0]
        header = re.sub(rf"(?m)^{name}:.*\n(?: .*\n)*", field + "\n", header)
    old, new = (text.decode().splitlines(keepends=True) for text in (before, after))
    return header + "".join(difflib.unified_diff(old, new, f"a/{like.target}", f"b/{like.target}"))


class Stage:
    """A copy of the patches, to work on until all is well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for distribution in patches.DISTRIBUTIONS:
            shutil.copytree(patches.PATCHES / distribution, folder / distribution)

    def patches(self, distribution: str) -> List[Patch]:
        return [patches.read(path) for path in sorted((self.folder / distribution).glob("*.patch"))]

    def put(self, distribution: str, names: List[str], text: str) -> Patch:
        stem = names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"
        path = self.folder / distribution / f"{stem}.patch"
        path.write_bytes(text.encode())
        return patches.read(path)

    def publish(self) -> None:
        for distribution in patches.DISTRIBUTIONS:
            folder = patches.PATCHES / distribution
            shutil.copytree(self.folder / distribution, folder, dirs_exist_ok=True)
            for path in folder.iterdir():
                if not (self.folder / distribution / path.name).exists():
                    path.unlink()


# Taking a release in


def _nearest(candidates: List[Patch], wanted: Wanted) -> Tuple[Patch, str]:
    """The patch to rebase, and the one of its releases to rebase it from: the last before the one wanted."""
    named = sorted(
        ((patch, release) for patch in candidates for release in patch.releases),
        key=lambda pair: Version(pair[1]),
    )
    earlier = [pair for pair in named if Version(pair[1]) < Version(wanted.release)]
    return earlier[-1] if earlier else named[0]


def _merge(ours: bytes, base: bytes, theirs: bytes, labels: Tuple[str, str, str]) -> bytes:
    """The three-way merge, with markers where there is a conflict."""
    with tempfile.TemporaryDirectory() as work:
        command = ["git", "merge-file", "--stdout"]
        files: List[str] = []
        for label, text in zip(labels, (ours, base, theirs)):
            command += ["-L", label]
            files.append(os.path.join(work, str(len(files))))
            Path(files[-1]).write_bytes(text)
        answer = subprocess.run(command + files, stdout=subprocess.PIPE)
    if answer.returncode not in range(128):  # The number of conflicts, up to 127
        raise PatchError("git merge-file failed")
    return answer.stdout


def _rebased(wanted: Wanted, like: Patch, base: str, before: bytes) -> bytes:
    file = wanted.work / Path(like.target).name
    if file.exists():
        print(f"{wanted}: taking the patched file from {file}; delete it to rebase anew")
    else:
        pristine = published_file(wanted.distribution, base, like.target)
        merged = _merge(like.apply(pristine), pristine, before, (f"{base} patched", base, wanted.release))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(merged)
    after = file.read_bytes()
    if re.search(rb"(?m)^(<{7}|>{7}) ", after):
        raise NeedsHand(
            f"{wanted}: its {like.target} conflicts with {like.path.name}; "
            f"resolve the conflict markers in {file}, then run this again"
        )
    return after


def take_in(stage: Stage, wanted: Wanted) -> None:
    """Extend or rebase a patch in the stage; raises NeedsHand, PatchError, ReleaseError."""
    hooks = releases.server_hooks(releases.unpacked(wanted.distribution, wanted.release))
    candidates = [
        patch
        for patch in stage.patches(wanted.distribution)
        if releases.server_hooks(releases.unpacked(wanted.distribution, patch.releases[0])) == hooks
    ]
    if not candidates:
        raise NeedsHand(
            f"{wanted}: expected Server to take signals over as in a release that has a patch, "
            f"found {' and '.join(sorted(hooks)) or 'no method known'}; write this patch by hand"
        )
    like, base = _nearest(candidates, wanted)
    before = published_file(wanted.distribution, wanted.release, like.target)
    same = next((patch for patch in candidates if patch.pristine_sha256 == patches.sha256(before)), None)
    if same is not None:
        names = sorted([*same.releases, wanted.release], key=Version)
        text = compose(same, names, same.revision, before, same.apply(before))
        same.path.unlink()
        extended = stage.put(wanted.distribution, names, text)
        print(f"{wanted}: {same.target} is as in {same.releases[-1]}: {same.path.name} becomes {extended.path.name}")
        return
    after = _rebased(wanted, like, base, before)
    rebased = stage.put(wanted.distribution, [wanted.release], compose(like, [wanted.release], 1, before, after))
    print(f"{wanted}: {like.target} is not as in {base}: {like.path.name} rebased. To review:\n\n{rebased.text}")


def proved(stage: Stage, wanted: Wanted) -> bool:
    """Whether the signal property tests pass on the release, patched out of the stage; raises ReleaseError."""
    venv = wanted.work / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    python = os.environ.get("PYTHON", sys.executable)
    requirements = [f"{wanted.distribution}=={wanted.release}", "uvicorn[standard]", "gunicorn"]
    releases.run(str(releases.UV), "venv", "--quiet", "--python", python, str(venv))
    releases.run(str(releases.UV), "pip", "install", "--quiet", "--python", str(venv), *requirements)
    [site_packages] = venv.glob("lib/python3.*/site-packages")
    for distribution in patches.DISTRIBUTIONS:
        for patch in stage.patches(distribution):
            if any(
                (site_packages / f"{patch.target.split('/')[0]}-{name}.dist-info").exists() for name in patch.releases
            ):
                file = site_packages / patch.target
                after = patch.apply(file.read_bytes())
                file.unlink()  # uv links files to its cache: not to be written through
                file.write_bytes(after)
    print(f"{wanted}: running the signal property tests in {venv}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "tests/properties", "--target", str(venv)]
    return subprocess.run(command, cwd=ROOT, env=properties.variables()).returncode == 0


def refresh(everything: List[Wanted]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder) / "patches")
        for wanted in everything:
            take_in(stage, wanted)
            if not proved(stage, wanted):
                print(f"refresh.sh: the property tests fail on {wanted}; nothing is written", file=sys.stderr)
                return 1
        stage.publish()
    for wanted in everything:
        shutil.rmtree(wanted.work)
    return 0


def check() -> int:
    found = missing()
    for wanted in found:
        print(f"{wanted}: no patch names it")
    if found:
        print("Take in what is missing: scripts/refresh.sh")
        return 1
    for distribution in patches.DISTRIBUTIONS:
        newest = max((name for patch in patches.catalogue(distribution) for name in patch.releases), key=Version)
        print(f"{distribution}: all published releases have a patch, up to {newest}")
    return 0


def repinned(path: Path) -> Tuple[int, str]:
    """The revision and the text of an edited patch file, its header and hunks made true; raises PatchError."""
    patch = patches.read(path)
    before = published_file(patch.distribution, patch.releases[0], patch.target)
    if patches.sha256(before) != patch.pristine_sha256:
        raise PatchError(f"{path}: Pristine-SHA256 is not that of {patch.distribution} {patch.releases[0]}")
    with tempfile.TemporaryDirectory() as work:
        target = Path(work) / patch.target
        target.parent.mkdir()
        target.write_bytes(before)
        # A repository around the working directory would take the paths for its own.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(work)}
        command = ["git", "apply", "--recount", str(path.resolve())]
        answer = subprocess.run(command, cwd=work, env=environment, stderr=subprocess.PIPE, text=True)
        after = target.read_bytes()
    if answer.returncode != 0:
        raise PatchError(f"{path}: does not apply to {patch.distribution} {patch.releases[0]}: {answer.stderr.strip()}")
    revision = patch.revision + (patches.sha256(after) != patch.patched_sha256)
    return revision, compose(patch, list(patch.releases), revision, before, after)


def repin(paths: List[Path]) -> int:
    for path, (revision, text) in [(path, repinned(path)) for path in paths]:
        path.write_bytes(text.encode())
        print(f"{path}: revision {revision}")
    return 0


def _wanted(version: str) -> Wanted:
    distribution, _, release = version.rpartition("==")
    wanted = Wanted(distribution or "uvicorn", release)
    if wanted.distribution not in patches.DISTRIBUTIONS:
        raise argparse.ArgumentTypeError(f"{version}: expected a release of {' or '.join(patches.DISTRIBUTIONS)}")
    return wanted


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        "scripts/refresh.sh",
        description=DESCRIPTION,
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say which published releases no patch names")
    what.add_argument(
        "--repin",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="make the hashes and hunks of patch files true again after an edit, and raise their Revision",
    )
    what.add_argument("versions", nargs="*", default=[], type=_wanted, metavar="VERSION", help="take in these releases")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            return check()
        if options.repin:
            return repin(options.repin)
        return refresh([wanted for wanted in _spelled(options.versions) or missing() if not _named(wanted)])
    except NeedsHand as error:
        print(f"refresh.sh: {error}", file=sys.stderr)
        return 3
    except (PatchError, ReleaseError, OSError) as error:
        print(f"refresh.sh: {error}", file=sys.stderr)
        return 2


def _spelled(everything: List[Wanted]) -> List[Wanted]:
    """As they were published: 0.55 is 0.55.0."""
    published = {name: releases.published(name) for name in {wanted.distribution for wanted in everything}}
    spellings = {(name, canonicalize_version(one)): one for name, ones in published.items() for one in ones}
    return [
        wanted._replace(
            release=spellings.get((wanted.distribution, canonicalize_version(wanted.release)), wanted.release)
        )
        for wanted in everything
    ]


def _named(wanted: Wanted) -> bool:
    patch = patches.find(*wanted)
    if patch is not None:
        print(f"{wanted}: {patch.path.name} names it already")
    return patch is not None


if __name__ == "__main__":
    sys.exit(main())
