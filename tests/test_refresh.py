"""Writing all patches from the newest one, and keeping them in step with upstream: scripts/refresh.sh."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, List, Tuple

import environments
import pytest
from usr1 import patches, wheel
from usr1.patches import PatchError
from usr1.upkeep import backports, refresh, releases

Captured = pytest.CaptureFixture[str]
ORIGINAL = patches.PATCHES
ROOT = ORIGINAL.parent
NEWEST = refresh.newest("uvicorn", refresh.all_patches())


def same(left: Path, right: Path) -> bool:
    """Whether two folders of patches have the same files, byte for byte."""
    return subprocess.run(["diff", "--recursive", str(left), str(right)]).returncode == 0


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the patches, committed, which this process takes for the patches."""
    folder = tmp_path / "patches"
    shutil.copytree(ORIGINAL, folder)
    environments.commit_all(tmp_path)
    monkeypatch.setattr(patches, "PATCHES", folder)
    monkeypatch.setattr(refresh, "WORK", tmp_path / "work")
    return folder


def test_all_is_written_again_byte_for_byte(copy: Path, capsys: Captured) -> None:
    newest = {NEWEST.path.name, refresh.newest("gunicorn", refresh.all_patches()).path.name}
    files = {patch.path for patch in refresh.all_patches()}
    followers = [path for path in files if path.name not in newest]
    for path in followers:
        text = re.sub(r"(?m)^\+ .*\n", "", path.read_text())
        path.write_text(re.sub(r"(?m)^(Description|Last-Update|\w+-SHA256): .*", r"\1: nonsense", text))
    assert len(followers) == len(files) - 2 and not same(copy, ORIGINAL)
    assert refresh.main([]) == 0
    assert same(copy, ORIGINAL), "run scripts/refresh.sh"
    assert capsys.readouterr().out.endswith("\nnothing is left to do\n")


def test_one_word_of_the_newest_changes_all(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the revision rises over one that was published."""
    published, newest = "0.29.0.patch", copy / "uvicorn" / NEWEST.path.name
    (copy / "uvicorn" / "superseded").mkdir()
    shutil.copy(copy / "uvicorn" / published, copy / "uvicorn" / "superseded" / f"again-{published}")
    before = newest.read_text()
    comment = re.search(r"(?m)^\+ .*  # (?!type: ).*\n", before)
    assert comment
    added = f"{comment[0][:-1]}, in other words\n+    # And a line\n"
    newest.write_text(before.replace(comment[0], added))  # So the counts of the hunk are wrong, too
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "946684800")
    assert refresh.main([]) == 0
    for patch in [patch for patch in refresh.all_patches() if patch.distribution != "gunicorn"]:
        assert added in patch.text and "\nLast-Update: 2000-01-01\n" in patch.header
        assert patch.revision == NEWEST.revision + (patch.path.name == published)
    assert same(copy / "gunicorn", ORIGINAL / "gunicorn")


@pytest.mark.parametrize(
    "old, new, said",
    [
        (" import asyncio\n", " import trio\n", f"{NEWEST.path.name}: does not apply to {NEWEST.releases[-1]}"),
        ("+        return super().capture_signals()\n", "", "expects in the newest patch, which has it not"),
    ],
)
def test_newest_that_nothing_follows_from(old: str, new: str, said: str, copy: Path, capsys: Captured) -> None:
    newest = copy / "uvicorn" / NEWEST.path.name
    before = newest.read_text()
    newest.write_text(before.replace(old, new))
    assert newest.read_text() != before
    assert refresh.main([]) == 2
    assert said in capsys.readouterr().err
    newest.write_text(before)
    assert same(copy, ORIGINAL)


@pytest.mark.full
def test_another_file_parts_the_releases_anew(copy: Path) -> None:
    before = patches.catalogue("gunicorn")
    newest = refresh.newest("gunicorn", before)
    name = "gunicorn/config.py"
    part = f"--- a/{name}\n+++ b/{name}\n@@ -70 +70,2 @@\n+# In other words\n def get_default_config_file():\n"
    text = newest.path.read_text().replace("-SHA256: ", "-SHA256: nonsense\n ")  # All hashes are written anew
    newest.path.write_text(text.replace("--- a/gunicorn/d", f"{part}--- a/gunicorn/d", 1))
    assert refresh.main([]) == 0
    found = patches.catalogue("gunicorn")
    assert len(found) > len(before)
    for patch in found:
        assert list(patch.patched)[:2] == ["gunicorn/arbiter.py", "gunicorn/config.py"]


def lines(letters: str) -> str:
    return "".join(f"{letter}\n" for letter in letters)


@pytest.mark.parametrize(
    "pristine, patched, other, result",
    [
        ("abc", "abXc", "ab", "abX"),  # After the line before it
        ("abc", "abXc", "c", "Xc"),  # Before the line after it
        ("abc", "Xabc", "bc", "Xbc"),
        ("abc", "abcX", "ab", "abX"),
        ("abc", "aXc", "bZ", "XZ"),  # What goes needs nothing beside it
        ("abcd", "ad", "bcd", "d"),
        ("abc", "aXbYc", "ZaZbZcZ", "ZaXZbYZcZ"),
    ],
)
def test_change_has_its_place(pristine: str, patched: str, other: str, result: str) -> None:
    assert backports.carried_over(*map(lines, (pristine, patched, other))) == lines(result)


@pytest.mark.parametrize(
    "pristine, patched, other, named",
    [
        ("abc", "abXc", "a", "bc"),  # Nothing is left of the place
        ("abc", "aXc", "ac", "b"),  # What goes has gone
        ("abcd", "aXd", "abd", "bc"),  # In part
        ("abcd", "aXd", "abZcd", "bc"),  # Or is no longer together
    ],
)
def test_change_without_a_place(pristine: str, patched: str, other: str, named: str) -> None:
    with pytest.raises(PatchError, match=f"what the patch changes:\n{lines(named)}$"):
        backports.carried_over(*map(lines, (pristine, patched, other)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(releases, "CACHE", tmp_path / "releases")
    return tmp_path / "releases"


def test_releases_are_fetched_once_and_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, source = releases.unpacked("uvicorn", "0.54.0"), releases.source("uvicorn-worker", "0.4.0")
    assert (wheel / "uvicorn" / "workers.py").is_file()
    assert (wheel / "uvicorn-0.54.0.dist-info" / "RECORD").is_file()
    assert (source / "uvicorn_worker" / "_workers.py").is_file()
    assert (source / "tests" / "test_workers.py").is_file()
    assert {*cache.iterdir()} == {wheel, source}
    monkeypatch.setattr(releases, "tempfile", None)  # To fetch it again would fail
    assert releases.unpacked("uvicorn", "0.54.0") == wheel
    assert releases.source("uvicorn-worker", "0.4.0") == source


def test_release_that_two_fetch_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = wheel.fetch

    def fetch_after_the_other(*arguments: str) -> None:
        monkeypatch.setattr(wheel, "fetch", fetch)
        releases.unpacked("uvicorn", "0.54.0")
        fetch(*arguments)

    monkeypatch.setattr(wheel, "fetch", fetch_after_the_other)
    assert releases.unpacked("uvicorn", "0.54.0").is_dir()
    assert len(list(cache.iterdir())) == 1


def test_release_that_cannot_be_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "fetch", lambda *arguments: None)
    with pytest.raises(FileNotFoundError):
        releases.unpacked("uvicorn", "0.54.0")


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch, copy: Path) -> List[str]:
    """Refresh without the property tests: which take a minute, and are run in a test below. What would be proved."""
    proved: List[str] = []

    def proved_nothing(wanted: refresh.Wanted, texts: refresh.Texts) -> bool:
        proved.append(str(wanted))
        return True

    monkeypatch.setattr(refresh, "proved", proved_nothing)
    return proved


@pytest.mark.parametrize(
    "distribution, gone, like",
    [
        ("uvicorn", ["0.24.0.post1", "0.13.0", "0.17.0"], "0.27.1"),  # The last one is yanked
        ("gunicorn", ["27.0.1", "25.1.0"], "no other, but 25.0.0-27.0.1.patch fits at other lines, as in 27.0.0"),
    ],
)
def test_releases_taken_out_come_back(
    distribution: str, gone: List[str], like: str, copy: Path, unproved: List[str], capsys: Captured
) -> None:
    everything = refresh.all_patches()
    sources = {name: refresh.change_in(refresh.newest(name, everything)) for name in ("uvicorn", "gunicorn")}
    left = [release for release in patches.releases(distribution) if release not in gone]
    texts = refresh.written({distribution: left}, sources)
    for path in (copy / distribution).glob("*.patch"):
        path.unlink()
    for path, text in texts.items():
        path.write_text(text)
    assert not same(copy, ORIGINAL)
    assert refresh.main([f"{distribution}=={release}" for release in gone]) == 0
    assert re.search(rf"(?m)^{distribution} {gone[0]}: .*\.py as in {like}$", capsys.readouterr().out)
    assert unproved == [f"{distribution} {release}" for release in gone]
    assert same(copy, ORIGINAL)


def test_check_names_what_is_missing(
    copy: Path, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert refresh.main(["--check"]) == 2
    assert "No matching distribution found for uvicorn" in capsys.readouterr().err
    for name in ("uvicorn-0.12.3", "uvicorn-0.54.0", "uvicorn_worker-0.4.0", "gunicorn-27.0.1"):
        (tmp_path / f"{name}-py3-none-any.whl").touch()
    assert refresh.main(["--check"]) == 0
    assert "uvicorn: all published releases have a patch, up to 0.54.0\n" in capsys.readouterr().out
    (tmp_path / "uvicorn-0.55.0-py3-none-any.whl").touch()
    assert refresh.main(["--check"]) == 1
    assert "uvicorn 0.55.0: has no patch\n" in capsys.readouterr().out
    assert same(copy, ORIGINAL)


@pytest.mark.parametrize("arguments", [["starlette==1.0"], ["--check", "0.54.0"], ["--frobnicate"]])
def test_wrong_arguments(arguments: List[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        refresh.main(arguments)
    assert stop.value.code == 2
    assert "usage: scripts/refresh.sh" in capsys.readouterr().err


def test_help_of_the_script() -> None:
    said = environments.output(ROOT / "scripts" / "refresh.sh", "--help", cwd="/")
    assert "exit status: 0 done" in said


def test_release_that_is_not_published(copy: Path, capsys: Captured) -> None:
    assert refresh.main(["0.13.99"]) == 2
    said = capsys.readouterr().err
    assert "uvicorn 0.13.99 cannot be fetched" in said and "no version of uvicorn==0.13.99" in said
    assert not (releases.CACHE / "uvicorn-0.13.99").exists()


Change = Tuple[str, str]  # What becomes what, in the names of files, too
Publish = Callable[[str, Change], None]  # Which release, with which change to the one before it


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publishes, for this test, a release that never was."""
    index, cache = tmp_path / "index", tmp_path / "releases"
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    cache.mkdir()
    for release in releases.CACHE.iterdir():
        (cache / release.name).symlink_to(release)
    monkeypatch.setattr(releases, "CACHE", cache)

    def make_up(release: str, change: Change) -> None:
        old, new = change
        like = [one for one in patches.releases("uvicorn") if patches.numbers(one) < patches.numbers(release)][-1]
        files = {}
        for name, data in wheel.installed("uvicorn", [str(releases.unpacked("uvicorn", like))]).items():
            data = data.replace(f"Version: {like}\n".encode(), f"Version: {release}\n".encode())
            files[name.replace(like, release).replace(old, new)] = data.replace(old.encode(), new.encode())
        wheel.pack(files, index)

    return make_up


CHANGED = "an ASGI consumer callable,", "an ASGI application,"  # Beside what the patch changes


COMPARED = '''
def test_boot(published):
    """There is a published uvicorn to compare the new one with."""
    assert "uvicorn" in __import__("os").listdir(published["PYTHONPATH"].partition(":")[0])
'''


@pytest.fixture
def boot(publish: Publish, copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the one property is that a new 0.55.0 is to have: it knows the patch before that is written."""
    publish("0.55.0", CHANGED)
    root = tmp_path / "a space"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "test_*"))
    monkeypatch.setattr(refresh, "ROOT", root)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")  # Which would prove nothing
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return root / "tests" / "properties" / "test_boot.py"


def test_release_that_breaks_a_promise(copy: Path, boot: Path, capfd: Captured) -> None:
    boot.write_text(COMPARED.replace(" in ", " not in "))
    assert refresh.main(["0.55.0"]) == 1
    assert "the property tests fail on uvicorn 0.55.0; nothing is written" in capfd.readouterr().err
    assert same(copy, ORIGINAL)


def test_changed_release_is_the_source(copy: Path, boot: Path, capfd: Captured) -> None:
    boot.write_text(COMPARED)
    days = [refresh._today()]
    assert refresh.main(["0.55", "0.55.0"]) == 0
    days.append(refresh._today())
    new, said = patches.find("uvicorn", "0.55.0"), capfd.readouterr().out
    assert new
    assert new.path.name == "0.55.0.patch"
    assert f"uvicorn 0.55.0: uvicorn/workers.py as in no other. To review:\n\n{new.header}{new.text}" in said
    assert said.count("1 of 1 promise holds here") == 1
    assert new.revision == NEWEST.revision
    assert any(f"\nLast-Update: {day}\n" in new.header for day in days)
    stale, names, *others = said.partition("left to do:\n")[2].splitlines()
    assert re.fullmatch(
        r"  patches/upstream/uvicorn: the series is stale: 000\d-.*\.patch does not apply to 0\.55\.0 as it is", stale
    )
    letter = "patches/upstream/uvicorn/0000-cover-letter.md,"
    assert {"README.md,", "README.zh-CN.md,", "docs/moments.svg,", letter} <= set(names.split()), names
    assert names.endswith(": name 0.54.0, see whether 0.55.0 takes its place")
    assert others == ["  CHANGELOG.md: name uvicorn 0.55.0"]
    [part], [old] = new.parts, NEWEST.parts
    before, after = (releases.unpacked("uvicorn", release) / part.target for release in ("0.54.0", "0.55.0"))
    assert part.apply(after.read_bytes()).decode() == old.apply(before.read_bytes()).decode().replace(*CHANGED)
    assert refresh.main(["0.55", "0.17.0"]) == 0
    assert capfd.readouterr().out.startswith(
        "uvicorn 0.55.0: 0.55.0.patch names it already\n"
        "uvicorn 0.17.0: 0.15.0-0.18.3.patch names it already\n"
        f"nothing to write: all of {copy} follows from the newest patches\n"
        "left to do:\n  patches/upstream/uvicorn: the series is stale: "
    )
    new.path.unlink()
    assert "0.55.0" in patches.published("uvicorn"), "what the fork is made from is pinned"
    assert f"uvicorn-0.55.0+usr1.{NEWEST.revision}-" in (copy / "uvicorn" / patches.FORKS).read_text()
    for hashes in (patches.PUBLISHED, patches.FORKS):
        shutil.copy(ORIGINAL / "uvicorn" / hashes, copy / "uvicorn")
    assert same(copy, ORIGINAL), "nothing else has changed"


SERVER = " = Server(config=self.config)\n", " = Server(self.config)\n"
COMMENT = "  # Don't let SIGUSR1", "  # Do not let SIGUSR1"
KWARGS = '    CONFIG_KWARGS: dict[str, Any] = {"loop": "auto", "http": "auto"}\n', ""
MOVED = "uvicorn/workers.py", "uvicorn/moved.py"


@pytest.mark.parametrize(
    "release, change, status, said",
    [
        ("0.55.0", SERVER, 3, "Write {}/uvicorn/0.55.0.patch by hand"),
        ("0.18.4", SERVER, 3, "what is different in uvicorn 0.18.4"),  # Its patch is made from the newest
        ("0.55.0", COMMENT, 3, "cannot be made from the patch of uvicorn 0.55.0"),
        ("0.55.0", KWARGS, 3, ", 0.36.0-0.54.0.patch, "),  # It is above a line of the patch
        ("0.55.0", MOVED, 2, "uvicorn 0.55.0: expected uvicorn/workers.py in its wheel, found none"),
    ],
)
def test_release_that_takes_a_person(
    release: str, change: Change, status: int, said: str, publish: Publish, unproved: List[str], capsys: Captured
) -> None:
    publish(release, change)
    assert refresh.main([release]) == status
    assert said.format(patches.PATCHES) in capsys.readouterr().err
    assert same(patches.PATCHES, ORIGINAL)
    assert not unproved


def test_series_that_ends_in_something_else(copy: Path) -> None:
    left_out = copy / "upstream" / "gunicorn" / "left-out.diff"
    left_out.write_text(left_out.read_text().replace("\n+ ", "\n+ x"))
    [left] = refresh.left_to_do(refresh.all_patches(), [])
    assert left.startswith("patches/upstream/gunicorn: the series is stale: it does not end in what ")
