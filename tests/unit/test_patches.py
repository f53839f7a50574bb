"""
The patches are what their headers say: complete, true, without gap or overlap, strictly
applicable to every release that they name. That they all say the same, in one form, is for test_refresh.py.
And what is refused: patch files that are malformed, and bytes that a patch is not pinned to. What exchanges a log
file is the same text in the newest patches and in the settings module.
"""

import ast
import datetime
import re
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

import environments
import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from test_module.test_module import MODULE
from usr1 import patches
from usr1.patches import Part, Patch, PatchError
from usr1.upkeep import refresh, releases
from usr1.wheel import Files

#: DEP-3's; the last one is our own, and so are patches.PINNED
FIELDS = ["Description", "Origin", "Bug", "Forwarded", "Last-Update", "Revision"]
CATALOGUE = [patch for distribution in patches.DISTRIBUTIONS for patch in patches.catalogue(distribution)]
every_patch = pytest.mark.parametrize("patch", CATALOGUE, ids="{0.distribution}-{0.releases[0]}".format)
every_distribution = pytest.mark.parametrize("distribution", patches.DISTRIBUTIONS)


def pristine(patch: Patch, release: str) -> Files:
    folder = releases.unpacked(patch.distribution, release)
    return {target: (folder / target).read_bytes() for target in patch.pristine}


def patched(patch: Patch, release: str) -> Files:
    before = pristine(patch, release)
    return {part.target: part.apply(before[part.target]) for part in patch.parts}


@every_patch
def test_header_is_complete(patch: Patch) -> None:
    fields = HeaderParser().parsestr(patch.header)
    assert fields.keys() == [*FIELDS, *patches.PINNED * len(patches.read(patch.path))]
    assert all(fields.values())
    assert not fields.defects
    assert re.fullmatch(r"(upstream|backport|vendor|other)\b.*", fields["Origin"])
    assert re.fullmatch(r"https://\S+", fields["Bug"])
    assert re.fullmatch(r"no|not-needed|https://\S+", fields["Forwarded"])
    last_update = datetime.datetime.strptime(fields["Last-Update"], "%Y-%m-%d")
    assert last_update < datetime.datetime.now() + datetime.timedelta(days=1)
    assert patch.revision >= 1
    described = set(re.findall(r"Server\.(\w+)\(\)", fields["Description"]))
    overridden = set(re.findall(r"(?m)^\+ .*super\(\)\.(install_signal_handlers|capture_signals)\(", patch.text))
    assert described == overridden


@every_distribution
def test_releases_without_overlap_or_gap(distribution: str) -> None:
    ordered = sorted(patches.catalogue(distribution), key=lambda patch: Version(patch.releases[0]))
    named = [Version(release) for patch in ordered for release in patch.releases]
    assert named == sorted(set(named)), "each release in one patch, and in order"
    published = releases.published(distribution)
    assert published == sorted(published, key=Version)
    assert published == sorted(reversed(published), key=patches.numbers)
    offered = list(map(Version, published))
    assert named[-1] in offered, "whatever Python it needs; unless it was yanked"
    # A yanked release is named, though the index no longer offers it; later ones are for refresh.sh --check.
    assert {release for release in offered if named[0] <= release <= named[-1]} <= set(named)


def tool_applies(command: "list[str]", patch: Patch, before: Files, folder: Path, *options: str) -> Files:
    """What a tool makes of files; fails if a hunk fits only in part."""
    for target, content in before.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_bytes(content)
    ceiling = str(folder.parent)
    environments.output(*command, patch.path, *options, cwd=folder, GIT_CEILING_DIRECTORIES=ceiling)
    return {target: (folder / target).read_bytes() for target in before}


GIT = ["git", "apply"]
PATCH = ["patch", "--strip=1", "--fuzz=0", "--no-backup-if-mismatch", "--input"]


@every_patch
def test_applies_strictly_to_every_release_it_names(patch: Patch, tmp_path: Path) -> None:
    for release in patch.releases:
        before = pristine(patch, release)
        after = patched(patch, release)
        assert {part.target: part.revert(after[part.target]) for part in patch.parts} == before
        for tool in (GIT, PATCH):
            assert tool_applies(tool, patch, before, tmp_path) == after
            assert tool_applies(tool, patch, after, tmp_path, "--reverse") == before
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == {tmp_path / target for target in patch.pristine}


@pytest.mark.root
@every_patch
def test_result_compiles_on_the_oldest_python(patch: Patch) -> None:
    """Here that one of its releases runs on."""
    folders = [releases.unpacked(patch.distribution, release) for release in patch.releases]
    texts = [next(folder.glob("*.dist-info/METADATA")).read_text() for folder in folders]
    supported = [SpecifierSet(HeaderParser().parsestr(text)["Requires-Python"] or "") for text in texts]
    pythons = environments.pythons()
    oldest = next(one for one in pythons if any("{}.{}.99".format(*one) in each for each in supported))
    compiles = "import sys; compile(sys.stdin.buffer.read(), 'f', 'exec')"
    for content in patched(patch, patch.releases[-1]).values():
        subprocess.run([pythons[oldest], "-W", "error", "-c", compiles], input=content, check=True)


@every_patch
def test_result_has_no_unused_import_and_no_undefined_name(patch: Patch) -> None:
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--select", "F", "--line-length", "120"]
    before = pristine(patch, patch.releases[-1])
    for target, content in patched(patch, patch.releases[-1]).items():
        old, new = (
            subprocess.run([*ruff, "--output-format=concise", "-"], input=text, capture_output=True).stdout.decode()
            for text in (before[target], content)
        )
        # Upstream's own files may have some already
        assert new.count("\n") == old.count("\n"), f"{target}: {new}"


TEXT = patches.catalogue("uvicorn")[-1].path.read_text()
HUNKS = "--- a/one.py\n+++ b/one.py\n@@ -5,2 +5 @@\n a\n-b\n@@ -8 +7,2 @@\n c\n+d\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("Description: nothing\n", "no unified diff"),
        *((TEXT.replace(f"{field}:", "X-Other:"), f"{field}.* missing") for field in ("Revision", *patches.PINNED)),
        (TEXT.replace("Applies-To:", "Applies-To: uvicorn 0.55.0\nApplies-To:"), "Pristine-SHA256.* missing"),
        (TEXT + HUNKS, "2 files, but 1 and 1 hashes"),
    ],
)
def test_malformed(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "one.patch").write_text(text)
    with pytest.raises(PatchError, match=said):
        patches.read(tmp_path / "one.patch")


def reopen(source: str) -> str:
    """The function, without annotations and docstring, in one form."""
    [function] = [
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "reopen"
    ]
    function.returns, function.args.args[0].annotation = None, None
    function.body = function.body[1:]
    return ast.unparse(function)


@every_distribution
def test_the_patches_exchange_a_file_as_the_module_does(distribution: str) -> None:
    newest = refresh.newest(distribution, CATALOGUE)
    files = patched(newest, newest.releases[-1]).values()
    [source] = [content.decode() for content in files if b"\ndef reopen(" in content]
    assert reopen(source) == reopen(MODULE.read_text())


def part_of(before: str, after: str) -> Part:
    return Part("one.py", patches.sha256(before.encode()), patches.sha256(after.encode()), HUNKS)


@pytest.mark.parametrize(
    "before, after",
    [
        ("1234ab7c", "1234a7cd"),  # Where the line numbers are
        ("abc", "acd"),
        ("12345678ab9c", "12345678a9cd"),
        ("cab1cab7cab", "cab1ca7cdab"),  # The nearest of several, which comes after the one before
        ("12345678abcc", "12345678accd"),  # Moved as the hunk before it
    ],
)
def test_hunks_lie_elsewhere(before: str, after: str) -> None:
    before, after = ("".join(f"{letter}\n" for letter in text) for text in (before, after))
    part = part_of(before, after)
    assert part.apply(before.encode()).decode() == after
    assert part.revert(after.encode()).decode() == before


@pytest.mark.parametrize(
    "before, said",
    [
        ("a1bc", "one.py does not have, or not in this order, the lines:\na\nb$"),
        ("cab", "the lines:\nc$"),
        ("abc", "the result has SHA-256"),
    ],
)
def test_a_diff_that_does_not_fit(before: str, said: str) -> None:
    before = "".join(f"{letter}\n" for letter in before)
    with pytest.raises(PatchError, match=said):
        part_of(before, before).apply(before.encode())
