"""
Write all patches anew from the newest one of a project, and keep them in step with what upstream publishes.

Which releases have a patch stands in the headers; everything else follows from the newest patch and from
backports.DIFFERENCES. Releases that follow each other share a patch file if the description and the change are the
same, even at other lines. People write the series in patches/upstream/.
"""

import argparse
import datetime
import difflib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from email.parser import HeaderParser
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from packaging.version import Version

from usr1 import patches, wheel
from usr1.apply import proof
from usr1.forks import fork
from usr1.patches import Patch, PatchError
from usr1.refusal import Refusal
from usr1.upkeep import backports, releases
from usr1.upkeep.backports import Change, Edit

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / ".cache" / "refresh"
TABLE = "scripts/usr1/upkeep/backports.py"

DESCRIPTION = """\
Write all patches again from the newest patch of uvicorn and the newest patch
of Gunicorn. Edit only these two. Last-Update becomes today if the
patch differs from the committed one. Revision is raised only if superseded/ has
the present one. So before you change a published patch, copy patches to
superseded/ as CONTRIBUTING.md says.

With VERSIONs (0.55 for uvicorn, uvicorn-worker==0.5 for another package),
add these releases too. refresh.sh tries the patches of the releases before and
after a new one. If one of these patches fits, even at other lines, refresh.sh
adds the release to it. If not, the new release gets its own patch, shown for
review. Then tests/properties run with the release, on $PYTHON if that is set,
else on the Python that runs this."""
STATUS = """\
exit status: 0 done, or nothing to do; 1 --check found releases without a
patch, or the property tests failed; 2 wrong arguments, no such release, no
package index, or an entry in scripts/usr1/upkeep/backports.py that no longer fits
the newest patch; 3 a release for which a person must write
the patch or an entry in backports.py. Files in patches/ change only with
exit status 0, or with 2 if writing them fails halfway."""


class NeedsHand(Exception):
    """A release that only a person can add; the message says where and how to go on."""


class Wanted(NamedTuple):
    distribution: str
    release: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.release}"


class Group(NamedTuple):
    """Releases whose files are the same, and the change to these."""

    names: List[str]
    change: Change


Texts = Dict[Path, str]  # Of the files in patches/
Named = Dict[str, List[str]]  # The releases of each distribution that have a patch, oldest first


def published_files(distribution: str, release: str, targets: Iterable[str]) -> Dict[str, str]:
    folder, files = releases.unpacked(distribution, release), {}
    for target in targets:
        if not (folder / target).exists():
            raise Refusal(f"{distribution} {release}: expected {target} in its wheel, found none; nothing to patch")
        files[target] = (folder / target).read_bytes().decode()
    return files


def all_patches() -> List[Patch]:
    return [patch for distribution in patches.DISTRIBUTIONS for patch in patches.catalogue(distribution)]


def newest(distribution: str, everything: List[Patch]) -> Patch:
    candidates = [patch for patch in everything if patch.distribution == distribution]
    return max(candidates, key=lambda patch: Version(patch.releases[-1]))


def git_apply(files: Dict[str, str], diff: str, *options: str) -> Dict[str, str]:
    """
    What a diff makes of some files; raises PatchError if it does not fit.

    With --verbose also if it fits only at other lines, which git then tells.
    """
    with tempfile.TemporaryDirectory() as work:
        for name, text in files.items():
            Path(work, name).parent.mkdir(parents=True, exist_ok=True)
            Path(work, name).write_bytes(text.encode())
        # A repository around the working directory would take the paths for its own. What git tells is read.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(work), "LC_ALL": "C"}
        command = ["git", "apply", *options, "-"]
        answer = subprocess.run(command, cwd=work, env=environment, input=diff.encode(), stderr=subprocess.PIPE)
        after = {name: Path(work, name).read_bytes().decode() for name in files}
    if answer.returncode != 0 or b" (offset " in answer.stderr:
        raise PatchError(answer.stderr.decode().strip())
    return after


def change_in(patch: Patch) -> Change:
    """What the hunks of a patch make of its newest release, whatever its header says; raises PatchError."""
    before = published_files(patch.distribution, patch.releases[-1], patch.pristine)
    # With --recount git does not read the counts in "@@", so only a "diff --git" line ends the hunks of a file.
    diff = "".join(f"diff --git a/{part.target} b/{part.target}\n{part.text}" for part in patch.parts)
    try:
        after = git_apply(before, diff, "--recount")
    except PatchError as error:
        raise PatchError(f"{patch.path}: does not apply to {patch.releases[-1]}: {error}") from error
    synopsis, _, description = HeaderParser().parsestr(patch.header)["Description"].partition("\n")
    edits = {name: Edit(text, after[name]) for name, text in before.items()}
    return Change(f"{synopsis}\n{' '.join(description.split())}", edits)


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


def revision_of(like: Patch, names: Sequence[str]) -> int:
    """That of the newest patch, or one more than that of the last one that was published, and so is kept."""
    superseded = patches.catalogue(like.distribution, patches.SUPERSEDED)
    published = [patch.revision for patch in superseded if not set(names).isdisjoint(patch.releases)]
    return max([like.revision, *(1 + revision for revision in published)])


def composed(path: Path, like: Patch, groups: Sequence[Group]) -> str:
    """The text of a patch file for some groups, the newest last: with the header of another, brought up to date."""
    change = groups[-1].change
    committed = _committed(path)
    synopsis, description = change.description.split("\n")
    fields = dict(re.findall(r"(?m)^(\S+): (.*\n(?: .*\n)*)", like.header))
    fields["Description"] = f"{synopsis}\n{textwrap.fill(description, 79, initial_indent=' ', subsequent_indent=' ')}"
    fields["Revision"] = str(revision_of(like, [name for group in groups for name in group.names]))
    # The committed date, and today's in its place only if the text differs from the committed one
    fields["Last-Update"] = HeaderParser().parsestr(committed)["Last-Update"] or ""
    shared = "".join(f"{name}: {value.strip()}\n" for name, value in fields.items() if name not in patches.PINNED)
    of_each_group = "".join(_pinned(like.distribution, group) for group in groups)
    text = shared + of_each_group + _diff(change)
    if text == committed:
        return text
    return re.sub("(?m)^Last-Update: .*", f"Last-Update: {_today()}", text, count=1)


def _pinned(distribution: str, group: Group) -> str:
    """The fields of a header that a group has for itself."""
    applies_to = " ".join(("Applies-To:", distribution, *group.names))
    edits = [edit for _, edit in sorted(group.change.edits.items())]
    hashes = ([patches.sha256(text.encode()) for text in (edit.pristine, edit.patched)] for edit in edits)
    # The two hashes of each file become two lists of hashes
    fields = [f"{name}: " + "\n ".join(column) for name, column in zip(patches.PINNED[1:], zip(*hashes))]
    return "\n".join([textwrap.fill(applies_to, 78, subsequent_indent=" ", break_on_hyphens=False), *fields, ""])


def _diff(change: Change) -> str:
    diff: List[str] = []
    for target, edit in sorted(change.edits.items()):
        old, new = (text.splitlines(keepends=True) for text in edit)
        diff += difflib.unified_diff(old, new, f"a/{target}", f"b/{target}")
    return "".join(diff)


def path_of(distribution: str, names: Sequence[str]) -> Path:
    first, last = names[0], names[-1]
    return patches.PATCHES / distribution / f"{first if first == last else f'{first}-{last}'}.patch"


def fits(newer: Change, older: Change) -> bool:
    """Whether the older change is the same at other lines: git apply makes it from the diffs of the newer one."""
    pristine = {target: edit.pristine for target, edit in older.edits.items()}
    patched = {target: edit.patched for target, edit in older.edits.items()}
    try:
        return newer.description == older.description and git_apply(pristine, _diff(newer)) == patched
    except PatchError:
        return False


def sharing(groups: List[Group]) -> List[List[Group]]:
    """The groups of each patch file, in their order; its diffs are those of the newest of them."""
    files: List[List[Group]] = []
    for group in reversed(groups):  # The newest of a file decides whether an older one joins it
        if files and fits(files[0][-1].change, group.change):
            files[0].insert(0, group)
        else:
            files.insert(0, [group])
    return files


def written(named: Named, sources: Dict[str, Change]) -> Texts:
    """All that follows from the sources, for these releases; raises PatchError, or NeedsHand for those that are new."""
    texts = {}
    for distribution, names in named.items():
        like = newest(distribution, patches.catalogue(distribution))
        changes = {release: change_for(Wanted(distribution, release), sources) for release in names}
        groups = [Group(list(same), change) for change, same in itertools.groupby(names, changes.__getitem__)]
        for together in sharing(groups):
            path = path_of(distribution, [release for group in together for release in group.names])
            texts[path] = composed(path, like, together)
        texts[patches.PATCHES / distribution / patches.PUBLISHED] = published_hashes(distribution, names)
    return texts


def change_for(wanted: Wanted, sources: Dict[str, Change]) -> Change:
    """What follows from the sources for a release; raises PatchError, or NeedsHand if it is new."""
    distribution, release = wanted
    source = sources[backports.SOURCES[distribution]]
    files = published_files(distribution, release, source.targets(distribution, release).values())
    try:
        return source.backported(distribution, release, files)
    except PatchError as error:
        ours = patches.releases(distribution)
        if release in ours:
            raise
        what = f"describe in {TABLE} what is different in {wanted}"
        if distribution in sources and Version(release) > Version(ours[-1]):
            what = f"Write {path_of(distribution, [release])} by hand, as CONTRIBUTING.md says"
        raise NeedsHand(f"{error}\n{what}") from error


def published_hashes(distribution: str, names: Sequence[str]) -> str:
    """What pins the wheels that the forks are made from; those that are known stay as they are."""
    known = patches.published(distribution)
    for release in names:
        if release not in known:
            files = wheel.installed(distribution, [str(releases.unpacked(distribution, release))])
            known[release] = wheel.digest(files)
    return "".join(f"{known[release]}  {release}\n" for release in names)


def forks(everything: List[Patch]) -> Texts:
    """What the forks are, bit for bit, as whoever builds them should find it."""
    texts: Texts = {}
    for patch in everything:
        path = patches.PATCHES / patch.distribution / patches.FORKS
        for release in patch.releases:
            files = wheel.installed(patch.distribution, [str(releases.unpacked(patch.distribution, release))])
            name, data = wheel.packed(fork.patched(patch, release, files))
            texts[path] = texts.get(path, "") + f"{patches.sha256(data)}  {name}\n"
    return texts


# Releases that are new


def review(wanted: Wanted, texts: Texts) -> None:
    """Show what patch a release has got."""
    ours = [patch for patch in _parsed(texts) if patch.distribution == wanted.distribution]
    [patch] = [patch for patch in ours if wanted.release in patch.releases]
    same = [release for release in patch.releases if release != wanted.release]
    others = [one.releases[-1] for one in ours if one.path == patch.path and one != patch]
    files = " and ".join(patch.pristine)
    if same:
        print(f"{wanted}: {files} as in {same[-1]}")
    elif others:
        print(f"{wanted}: {files} as in no other, but {patch.path.name} fits at other lines, as in {others[-1]}")
    else:
        print(f"{wanted}: {files} as in no other. To review:\n\n{texts[patch.path]}")


def _parsed(texts: Texts) -> List[Patch]:
    files = [(path, text) for path, text in texts.items() if path.suffix == ".patch"]
    return [patch for path, text in files for patch in patches.parse(path, text)]


#: A program: FOLDER [PYTEST'S ARGUMENTS ...] VENV. It applies the patches in FOLDER to VENV, then runs pytest.
PROVE = """
import pathlib, sys
sys.path.insert(0, "scripts")
from usr1 import patches
patches.PATCHES = pathlib.Path(sys.argv.pop(1))
from usr1.apply import change, environment, installed
venv = environment.find(pathlib.Path(sys.argv[-1]))
change.make(venv, [(one, one.patched) for one in installed.find(venv) if one.patch])
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def proved(wanted: Wanted, texts: Texts) -> bool:
    """Whether the signal property tests pass on the release with these patches; raises Refusal."""
    shutil.rmtree(WORK, ignore_errors=True)  # Patches that a failed run has left would be found first
    venv = WORK / f"{wanted.distribution}-{wanted.release}"
    python = os.environ.get("PYTHON", sys.executable)
    requirements = [f"{wanted.distribution}=={wanted.release}", "uvicorn[standard]", "gunicorn"]
    releases.run(str(releases.UV), "venv", "--quiet", "--python", python, str(venv))
    releases.run(str(releases.UV), "pip", "install", "--quiet", "--python", str(venv), *requirements)
    print(f"{wanted}: running the signal property tests in {venv}", flush=True)
    folder = WORK / "patches"  # In patches/ none names this release yet, and the tests look that up
    for path, text in texts.items():
        (folder / path.relative_to(patches.PATCHES)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(patches.PATCHES)).write_text(text)
    command = [sys.executable, "-c", PROVE, str(folder), "-q", "tests/properties", "--environment", str(venv)]
    return subprocess.run(command, cwd=ROOT, env=proof.variables()).returncode == 0


def stale(patch: Patch) -> str:
    """Why the series for upstream does not end in what a patch makes of its newest release, if it does not."""
    series = patches.PATCHES / "upstream" / patch.distribution
    published = published_files(patch.distribution, patch.releases[-1], patch.pristine)
    files, only = published, [f"--include={name}" for name in patch.pristine]
    for diff in [*sorted(series.glob("*.patch")), series / "left-out.diff"]:
        try:
            files = git_apply(files, diff.read_text(), "--verbose", *only)
        except PatchError:
            return f"{diff.name} does not apply to {patch.releases[-1]} as it is"
    patched = {part.target: part.apply(published[part.target].encode()).decode() for part in patch.parts}
    return "" if files == patched else f"it does not end in what {patch.path.name} does"


def left_to_do(before: List[Patch], added: List[Wanted]) -> List[str]:
    """What a person has to do after this."""
    found = []
    for distribution in patches.DISTRIBUTIONS:
        then, now = (newest(distribution, everything) for everything in (before, all_patches()))
        why = stale(now)
        if why:
            found.append(f"patches/upstream/{distribution}: the series is stale: {why}")
        old, new = then.releases[-1], now.releases[-1]
        if old != new:
            old_version = re.compile(rf"(?<![\w.]){re.escape(old)}(?![\w.])")
            places = ("*.md", "docs/*.md", "docs/*.svg", "patches/upstream/*/*.md", "tests/**/*.py")
            files = sorted(
                path for place in places for path in ROOT.glob(place) if old_version.search(path.read_text())
            )
            names = ", ".join(str(path.relative_to(ROOT)) for path in files)
            found.append(f"{names}: name {old}, see whether {new} takes its place")
    if added:
        found.append(f"CHANGELOG.md: name {', '.join(map(str, added))}")
    return found


def expect_that_the_next_run_agrees(named: Named, sources: Dict[str, Change], texts: Texts) -> None:
    """
    Raises NeedsHand if the next run would make other patches than these.

    It makes them from those of the newest release, which may be one that is just added.
    """
    now = [newest(name, _parsed(texts)) for name in sources]
    new = [patch for patch in now if patch.releases[-1] not in patches.releases(patch.distribution)]
    if not new:
        return
    names = " and ".join(f"{patch.distribution} {patch.releases[-1]}" for patch in new)
    problem = (
        f"the older patches cannot be made from the patch of {names}; "
        f"describe in {TABLE} what is different in the older releases"
    )
    try:
        again = written(named, {**sources, **{patch.distribution: change_in(patch) for patch in new}})
    except PatchError as error:
        raise NeedsHand(f"{problem}: {error}") from error
    changed = [path.name for path in texts if texts[path] != again.get(path)]
    if changed:
        raise NeedsHand(f"{problem}: {', '.join(changed)} would change")


def all_named(more: List[Wanted]) -> Named:
    """The releases that have a patch, and more that are to get one."""
    found = {distribution: patches.releases(distribution) for distribution in patches.DISTRIBUTIONS}
    for distribution, release in more:
        found[distribution].append(release)
    return {distribution: sorted(names, key=Version) for distribution, names in found.items()}


def refresh(added: List[Wanted]) -> int:
    everything = all_patches()
    sources = {name: change_in(newest(name, everything)) for name in set(backports.SOURCES.values())}
    named = all_named(added)
    texts = written(named, sources)
    for wanted in added:
        review(wanted, texts)
    expect_that_the_next_run_agrees(named, sources, texts)
    texts.update(forks(_parsed(texts)))
    for wanted in added:
        if not proved(wanted, texts):
            print(f"refresh.sh: the property tests fail on {wanted}; nothing is written", file=sys.stderr)
            return 1
        shutil.rmtree(WORK, ignore_errors=True)
    for path in {patch.path for patch in everything} - texts.keys():  # Named for its releases, it has another name now
        path.unlink()
        print(f"removed: {path}")
    changed = [path for path, text in texts.items() if not path.exists() or path.read_bytes() != text.encode()]
    for path in changed:
        path.write_bytes(texts[path].encode())
        print(f"written: {path}")
    if not changed:
        print(f"nothing to write: all of {patches.PATCHES} follows from the newest patches")
    left = left_to_do(everything, added)
    print("\n".join(["left to do:", *(f"  {one}" for one in left)]) if left else "nothing is left to do")
    return 0


def check() -> int:
    """Say what the index has and no patch names, from the first release with a patch on."""
    named = all_named([])
    missing = [
        Wanted(distribution, release)
        for distribution, names in named.items()
        for release in releases.published(distribution)
        if release not in names and Version(release) > Version(names[0])
    ]
    for wanted in missing:
        print(f"{wanted}: has no patch")
    if missing:
        print("To add what is missing: scripts/refresh.sh", *(f"{name}=={release}" for name, release in missing))
        return 1
    for distribution, names in named.items():
        print(f"{distribution}: all published releases have a patch, up to {names[-1]}")
    return 0


def _wanted(version: str) -> Wanted:
    distribution, _, release = version.rpartition("==")
    wanted = Wanted(distribution or "uvicorn", release)
    if wanted.distribution not in patches.DISTRIBUTIONS:
        raise argparse.ArgumentTypeError(f"{version}: expected a release of {' or '.join(patches.DISTRIBUTIONS)}")
    return wanted


def _unnamed(added: List[Wanted]) -> List[Wanted]:
    """Those that no patch names, spelled as they were published: 0.55 is 0.55.0; raises Refusal."""
    unnamed = []
    for distribution, release in added:
        same = [one for one in releases.published(distribution) if Version(one) == Version(release)]
        wanted = Wanted(distribution, same[0] if same else release)
        patch = patches.find(*wanted)
        if patch is None and wanted not in unnamed:
            unnamed.append(wanted)
        if patch is not None:
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
    what.add_argument("--check", action="store_true", help="only list published releases without a patch")
    what.add_argument("versions", nargs="*", default=[], type=_wanted, metavar="VERSION", help="add these releases")
    options = parser.parse_args(arguments)
    try:
        return check() if options.check else refresh(_unnamed(options.versions))
    except NeedsHand as error:
        print(f"refresh.sh: {error}", file=sys.stderr)
        return 3
    except (PatchError, Refusal, OSError) as error:
        print(f"refresh.sh: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
