"""
Write all patches anew from the newest one of uvicorn, and keep them in step with what upstream publishes.

Which releases a patch is for stands in its header; everything else in it follows from the newest
patch and from backports.DIFFERENCES. So does the first commit of each series in patches/upstream/.
"""

import argparse
import datetime
import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from email.parser import HeaderParser
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from packaging.version import Version

from usr1 import backports, patches, properties, releases
from usr1.backports import Change
from usr1.patches import Patch, PatchError
from usr1.releases import ReleaseError

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "refresh"

DESCRIPTION = """\
Write all patches anew, and the first commit of each series in patches/upstream/:
from the newest patch of uvicorn, whose hunks may have been edited. Last-Update
is the day where that changes what is committed; Revision is one more than that
of the patch in superseded/, so keep there what was published.

With VERSIONs (of uvicorn; another package's is written uvicorn-worker==0.4.0),
take these releases in as well. Where the file is as in a release that has a
patch, the header of that patch names the new one too; where it changed, it gets
a patch of its own, shown for review. The signal property tests then run on the
release, on the Python that PYTHON names, else the tools' own."""
STATUS = """\
exit status: 0 done, or nothing to do; 1 --check found releases that no patch
names, or the property tests failed; 2 wrong arguments, no such release, no
package index, or a difference in scripts/usr1/backports.py that is stale; 3 a
release that takes a person to take in. Except with 0, patches/ is as it was."""


class NeedsHand(Exception):
    """A release that takes a person to take in; the message says where and how to go on."""


class Wanted(NamedTuple):
    distribution: str
    release: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.release}"


Texts = Dict[Path, str]  # Of the files in patches/


def published_file(distribution: str, release: str, target: str) -> str:
    file = releases.unpacked(distribution, release) / target
    if not file.exists():
        raise ReleaseError(f"{distribution} {release}: expected {target} in its wheel, found none; nothing to patch")
    return file.read_bytes().decode()


def catalogue() -> List[Patch]:
    return [patch for distribution in patches.DISTRIBUTIONS for patch in patches.catalogue(distribution)]


def newest(distribution: str, everything: List[Patch]) -> Patch:
    candidates = [patch for patch in everything if patch.distribution == distribution]
    return max(candidates, key=lambda patch: Version(patch.releases[-1]))


def change_of(patch: Patch) -> Change:
    """What the hunks of a patch make of its newest release, right or wrong as its header may be; raises PatchError."""
    before = published_file(patch.distribution, patch.releases[-1], patch.target)
    with tempfile.TemporaryDirectory() as work:
        target = Path(work, patch.target)
        target.parent.mkdir()
        target.write_bytes(before.encode())
        # A repository around the working directory would take the paths for its own.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(work)}
        command = ["git", "apply", "--recount", "-"]
        answer = subprocess.run(command, cwd=work, env=environment, input=patch.text.encode(), stderr=subprocess.PIPE)
        after = target.read_bytes().decode()
    if answer.returncode != 0:
        raise PatchError(f"{patch.path}: does not apply to {patch.releases[-1]}: {answer.stderr.decode().strip()}")
    synopsis, _, description = HeaderParser().parsestr(patch.header)["Description"].partition("\n")
    return Change(f"{synopsis}\n{' '.join(description.split())}", before, after)


def _committed(path: Path) -> str:
    """The text of a file as it was last committed; where there is no such commit, as it is now, or none."""
    answer = subprocess.run(["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"], capture_output=True)
    if answer.returncode == 0:
        return answer.stdout.decode()
    return path.read_bytes().decode() if path.exists() else ""


def _today() -> str:
    """For Last-Update: the day of SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/), else today."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.date.today().isoformat()
    return datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).date().isoformat()


def revision_of(patch: Patch) -> int:
    """One more than that of the last one that was published, and so is kept."""
    kept = map(patches.read, (patches.PATCHES / patch.distribution).glob("superseded/*.patch"))
    return 1 + max((one.revision for one in kept if patch.releases[0] in one.releases), default=0)


def composed(patch: Patch, change: Change) -> str:
    """The text of a patch file: with the header of another, or of what it was, brought up to date."""
    synopsis, description = change.description.split("\n")
    applies_to = " ".join(("Applies-To:", patch.distribution, *patch.releases))
    committed = _committed(patch.path)
    fields = {
        "Description": f"{synopsis}\n{textwrap.fill(description, 79, initial_indent=' ', subsequent_indent=' ')}",
        "Last-Update": HeaderParser().parsestr(committed)["Last-Update"],
        "Applies-To": textwrap.fill(applies_to, 78, subsequent_indent=" ", break_on_hyphens=False).partition(": ")[2],
        "Revision": str(revision_of(patch)),
        "Pristine-SHA256": patches.sha256(change.pristine.encode()),
        "Patched-SHA256": patches.sha256(change.patched.encode()),
    }
    old, new = (text.splitlines(keepends=True) for text in (change.pristine, change.patched))
    diff = "".join(difflib.unified_diff(old, new, f"a/{patch.target}", f"b/{patch.target}"))

    def text() -> str:
        whole = re.findall(r"(?m)^(\S+): (.*\n(?: .*\n)*)", patch.header)
        return "".join(f"{name}: {fields.get(name, value.strip())}\n" for name, value in whole) + diff

    if text() != committed:
        fields["Last-Update"] = _today()
    return text()


def path_of(patch: Patch) -> Path:
    first, last = patch.releases[0], patch.releases[-1]
    return patches.PATCHES / patch.distribution / f"{first if first == last else f'{first}-{last}'}.patch"


def commit(text: str, patch: Patch, change: Change) -> str:
    """A mail as `git format-patch --no-stat --full-index` writes it: with its own message, and this change."""
    message, _, _ = text.partition("\ndiff --git ")
    blobs = [b"blob %d\0%s" % (len(file), file) for file in (change.pristine.encode(), change.patched.encode())]
    old, new = (hashlib.sha1(blob).hexdigest() for blob in blobs)
    paths = f"a/{patch.target} b/{patch.target}"
    return f"{message}\ndiff --git {paths}\nindex {old}..{new} 100644\n{patch.text}"


def written(everything: List[Patch], source: Change) -> Texts:
    """All that follows from the source, for these patches and the releases that they name; raises PatchError."""
    texts = {}
    for patch in everything:
        differences = [backports.differences(patch.distribution, release) for release in patch.releases]
        if any(each != differences[0] for each in differences):
            raise PatchError(f"{patch.path}: a difference holds in some of its releases only")
        release = patch.releases[-1]
        before = published_file(patch.distribution, release, patch.target)
        change = source.backported(patch.distribution, release, before)
        texts[path_of(patch)] = text = composed(patch, change)
        if patch is newest(patch.distribution, everything):
            [first] = (patches.PATCHES / "upstream" / patch.distribution).glob("0001-*.patch")
            texts[first] = commit(first.read_text(), patches.parse(patch.path, text), change)
    return texts


# Releases that are new


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


def taken_in(everything: List[Patch], source: Change, wanted: Wanted) -> List[Patch]:
    """The patches with one more that names the release, or a new one; raises NeedsHand, ReleaseError."""
    like = newest(wanted.distribution, everything)
    before = published_file(*wanted, like.target)
    differences = backports.differences(*wanted)
    for number, patch in enumerate(everything):
        same = patch.distribution == wanted.distribution and patch.pristine_sha256 == patches.sha256(before.encode())
        if same and backports.differences(wanted.distribution, patch.releases[0]) == differences:
            print(f"{wanted}: {patch.target} is as in {patch.releases[-1]}")
            named = sorted([*patch.releases, wanted.release], key=Version)
            return [*everything[:number], patch._replace(releases=tuple(named)), *everything[number + 1 :]]
    new = like._replace(releases=(wanted.release,))
    new = new._replace(path=path_of(new))
    try:
        text = composed(new, source.backported(*wanted, before))
    except PatchError as error:
        raise NeedsHand(
            f"{error}\nWrite {new.path} by hand, or what differs there into scripts/usr1/backports.py; "
            "then run scripts/refresh.sh"
        ) from error
    print(f"{wanted}: {new.target} is not as in any other. To review:\n\n{text}")
    return [*everything, patches.parse(new.path, text)]


def proved(wanted: Wanted, texts: Texts) -> bool:
    """Whether the signal property tests pass on the release with these patches; raises ReleaseError."""
    venv = WORK / f"{wanted.distribution}-{wanted.release}"
    shutil.rmtree(venv, ignore_errors=True)
    python = os.environ.get("PYTHON", sys.executable)
    requirements = [f"{wanted.distribution}=={wanted.release}", "uvicorn[standard]", "gunicorn"]
    releases.run(str(releases.UV), "venv", "--quiet", "--python", python, str(venv))
    releases.run(str(releases.UV), "pip", "install", "--quiet", "--python", str(venv), *requirements)
    [site_packages] = venv.glob("lib/python3.*/site-packages")
    for patch in [patches.parse(path, text) for path, text in texts.items() if path.parent.parent == patches.PATCHES]:
        file = site_packages / patch.target
        information = [Path(f"{file.parent}-{release}.dist-info") for release in patch.releases]
        if any(folder.exists() for folder in information):
            after = patch.apply(file.read_bytes())
            file.unlink()  # uv links files to its cache: not to be written through
            file.write_bytes(after)
    print(f"{wanted}: running the signal property tests in {venv}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "tests/properties", "--target", str(venv)]
    return subprocess.run(command, cwd=ROOT, env=properties.variables()).returncode == 0


def follow(everything: List[Patch], texts: Texts) -> None:
    """Raises NeedsHand if another release has become the newest, and the rest does not follow from it likewise."""
    source = newest("uvicorn", everything)
    problem = f"uvicorn {source.releases[-1]} becomes the source, but not all follows from it; say in "
    problem += "scripts/usr1/backports.py what differed up to the release before"
    try:
        again = written(everything, change_of(patches.parse(source.path, texts[path_of(source)])))
    except PatchError as error:
        raise NeedsHand(f"{problem}: {error}") from error
    others = [path.name for path in texts if texts[path] != again[path]]
    if others:
        raise NeedsHand(f"{problem}: {', '.join(others)} would change")


def refresh(everybody: List[Wanted]) -> int:
    everything = catalogue()
    source = change_of(newest("uvicorn", everything))
    for wanted in everybody:
        everything = taken_in(everything, source, wanted)
    texts = written(everything, source)
    follow(everything, texts)
    for wanted in everybody:
        if not proved(wanted, texts):
            print(f"refresh.sh: the property tests fail on {wanted}; nothing is written", file=sys.stderr)
            return 1
        shutil.rmtree(WORK, ignore_errors=True)
    for path in {patch.path for patch in everything if patch.path.exists()} - texts.keys():
        path.unlink()
    for path, text in texts.items():
        if not path.exists() or path.read_bytes() != text.encode():
            path.write_bytes(text.encode())
            print(f"written: {path}")
    return 0


def check() -> int:
    found = missing()
    for wanted in found:
        print(f"{wanted}: no patch names it")
    if found:
        print("To take in what is missing: scripts/refresh.sh", *(f"{name}=={release}" for name, release in found))
        return 1
    for distribution in patches.DISTRIBUTIONS:
        release = newest(distribution, catalogue()).releases[-1]
        print(f"{distribution}: all published releases have a patch, up to {release}")
    return 0


def _wanted(version: str) -> Wanted:
    distribution, _, release = version.rpartition("==")
    wanted = Wanted(distribution or "uvicorn", release)
    if wanted.distribution not in patches.DISTRIBUTIONS:
        raise argparse.ArgumentTypeError(f"{version}: expected a release of {' or '.join(patches.DISTRIBUTIONS)}")
    return wanted


def _unnamed(everybody: List[Wanted]) -> List[Wanted]:
    """Those that no patch names, spelled as they were published: 0.55 is 0.55.0; raises ReleaseError."""
    unnamed = []
    for distribution, release in everybody:
        same = [one for one in releases.published(distribution) if Version(one) == Version(release)]
        wanted = Wanted(distribution, same[0] if same else release)
        patch = patches.find(*wanted)
        if patch is None:
            unnamed.append(wanted)
        else:
            print(f"{wanted}: {patch.path.name} names it already")
    return unnamed


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        "scripts/refresh.sh",
        description=DESCRIPTION,
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say which published releases no patch names")
    what.add_argument("versions", nargs="*", default=[], type=_wanted, metavar="VERSION", help="take in these releases")
    options = parser.parse_args(arguments)
    try:
        return check() if options.check else refresh(_unnamed(options.versions))
    except NeedsHand as error:
        print(f"refresh.sh: {error}", file=sys.stderr)
        return 3
    except (PatchError, ReleaseError, OSError) as error:
        print(f"refresh.sh: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
