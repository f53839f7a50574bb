"""Writing all patches from the newest one, and keeping them in step with upstream: scripts/refresh.sh."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, List, Tuple

import pytest
from usr1 import patches, wheel
from usr1.patches import PatchError
from usr1.refusal import Refusal
from usr1.upkeep import backports, refresh, releases
from usr1.upkeep.backports import Difference, Edit, Replacement

Captured = pytest.CaptureFixture[str]
ORIGINAL = patches.PATCHES
ROOT = ORIGINAL.parent
NEWEST = refresh.newest("uvicorn", refresh.catalogue())


def same(left: Path, right: Path) -> bool:
    """Whether two folders of patches have the same files, byte for byte."""
    return subprocess.run(["diff", "--recursive", str(left), str(right)]).returncode == 0


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the patches, committed, which this process takes for the patches."""
    folder = tmp_path / "patches"
    shutil.copytree(ORIGINAL, folder)
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    for command in (["init", "--quiet"], ["add", "patches"], [*identity, "commit", "--quiet", "--message=as it is"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(patches, "PATCHES", folder)
    monkeypatch.setattr(refresh, "WORK", tmp_path / "work")
    return folder


# All follows from the newest


def test_all_is_written_again_byte_for_byte(copy: Path) -> None:
    newest = {NEWEST.path.name, refresh.newest("gunicorn", refresh.catalogue()).path.name}
    files = {patch.path for patch in refresh.catalogue()}
    followers = [path for path in files if path.name not in newest]
    for path in followers:
        text = re.sub(r"(?m)^\+ .*\n", "", path.read_text())
        path.write_text(re.sub(r"(?m)^(Description|Last-Update|\w+-SHA256): .*", r"\1: nonsense", text))
    assert len(followers) == len(files) - 2 and not same(copy, ORIGINAL)
    assert refresh.main([]) == 0
    assert same(copy, ORIGINAL), "run scripts/refresh.sh"


def apply_everywhere(patch: patches.Patch) -> None:
    for release in patch.releases:
        for part in patch.parts:
            part.apply((releases.unpacked(patch.distribution, release) / part.target).read_bytes())


def test_one_word_of_the_newest_changes_all(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = copy / "uvicorn" / NEWEST.path.name
    before = newest.read_text()
    comment = re.search(r"(?m)^\+ .*  # (?!type: ).*\n", before)
    assert comment
    added = f"{comment[0][:-1]}, in other words\n+    # And a line\n"
    newest.write_text(before.replace(comment[0], added))  # So the counts of the hunk are wrong, too
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "946684800")
    assert refresh.main([]) == 0
    for patch in [patch for patch in refresh.catalogue() if patch.distribution != "gunicorn"]:
        assert added in patch.text and "\nLast-Update: 2000-01-01\n" in patch.header
        apply_everywhere(patch)

    newest.write_text(newest.read_text().replace(added, comment[0]))
    assert refresh.main([]) == 0
    assert same(copy, ORIGINAL)


def test_revision_rises_over_what_was_published(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "0.29.0.patch"
    before = patches.read(copy / "uvicorn" / name)
    (copy / "uvicorn" / "superseded").mkdir()
    shutil.copy(copy / "uvicorn" / name, copy / "uvicorn" / "superseded" / f"again-{name}")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    days = [refresh._today()]
    assert refresh.main([]) == 0
    days.append(refresh._today())
    after = patches.read(copy / "uvicorn" / name)
    assert after == [one._replace(revision=one.revision + 1, header=after[0].header) for one in before]
    assert any(f"\nLast-Update: {day}\n" in after[0].header for day in days)
    assert NEWEST.path.read_text() == (copy / "uvicorn" / NEWEST.path.name).read_text()


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


THERE = Replacement("class WorkerServer(Server):", "class WorkerServer(Server):  # It is another there")


def difference(since: str, until: str, *change: Replacement) -> Difference:
    return Difference("made up", "uvicorn", since, until, change=change)


def also(monkeypatch: pytest.MonkeyPatch, *more: Difference) -> None:
    monkeypatch.setattr(backports, "DIFFERENCES", (*backports.DIFFERENCES, *more))


def test_difference_within_a_patch_parts_it(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as parted:
        also(parted, difference("0.30.0", "0.31.0", THERE))
        assert refresh.main([]) == 0
    names = sorted(path.name for path in copy.glob("uvicorn/0.3[0-5]*.patch"))
    assert names == ["0.30.0-0.31.0.patch", "0.31.1-0.35.0.patch"]
    assert refresh.main([]) == 0
    assert same(copy, ORIGINAL)


def add_a_file() -> None:
    """To those that the newest patch of gunicorn changes; its hashes, as all of them, are written anew."""
    newest = refresh.newest("gunicorn", refresh.catalogue())
    name, line = "gunicorn/config.py", "def get_default_config_file():\n"
    before = (releases.unpacked("gunicorn", newest.releases[-1]) / name).read_text()
    part = refresh._diff(backports.Change("", {name: Edit(before, before.replace(line, f"# In other words\n{line}"))}))
    text = newest.path.read_text().replace("-SHA256: ", "-SHA256: nonsense\n ")
    newest.path.write_text(text.replace("--- a/gunicorn/d", f"{part}--- a/gunicorn/d", 1))


@pytest.mark.full
def test_another_file_parts_the_releases_anew(copy: Path) -> None:
    before = patches.catalogue("gunicorn")
    add_a_file()
    assert refresh.main([]) == 0
    found = patches.catalogue("gunicorn")
    assert len(found) > len(before)
    for patch in found:
        assert list(patch.patched)[:2] == ["gunicorn/arbiter.py", "gunicorn/config.py"]
        apply_everywhere(patch)


def lines(letters: str) -> str:
    return "".join(f"{letter}\n" for letter in letters)


@pytest.mark.parametrize(
    "pristine, patched, other, result",
    [
        ("abc", "abXc", "abc", "abXc"),
        ("abc", "abXc", "ab", "abX"),  # After the line before it
        ("abc", "abXc", "c", "Xc"),  # Before the line after it
        ("abc", "abXc", "abZc", "abXZc"),
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


# Releases, as the package index has them


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(releases, "CACHE", tmp_path / "releases")
    return tmp_path / "releases"


def test_published_are_in_order_of_version() -> None:
    found = releases.published("uvicorn")
    ordered = ["0.0.1", "0.9.1", "0.13.0", "0.24.0", "0.24.0.post1", "0.54.0"]  # The last one needs a newer Python
    assert [release for release in found if release in ordered] == ordered


@pytest.mark.parametrize(
    "fetch, wanted, files",
    [
        (releases.unpacked, ("uvicorn", "0.54.0"), ["uvicorn/workers.py", "uvicorn-0.54.0.dist-info/RECORD"]),
        (releases.source, ("uvicorn-worker", "0.4.0"), ["uvicorn_worker/_workers.py", "tests/test_workers.py"]),
    ],
)
def test_release_is_fetched_once_and_whole(
    fetch: Callable[..., Path], wanted: Tuple[str, str], files: List[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(*wanted)
    assert all((folder / file).is_file() for file in files)
    assert list(cache.iterdir()) == [folder]
    monkeypatch.setattr(releases, "tempfile", None)  # To fetch it again would fail
    assert fetch(*wanted) == folder


def test_release_that_two_fetch_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, seen = wheel.fetch, []

    def fetch_after_the_other(*arguments: str) -> None:
        seen.append(arguments)
        if len(seen) == 1:
            releases.unpacked("uvicorn", "0.54.0")
        fetch(*arguments)

    monkeypatch.setattr(wheel, "fetch", fetch_after_the_other)
    assert releases.unpacked("uvicorn", "0.54.0").is_dir()
    assert len(seen) == 2 and len(list(cache.iterdir())) == 1


def test_release_that_cannot_be_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "fetch", lambda *arguments: None)
    with pytest.raises(FileNotFoundError):
        releases.unpacked("uvicorn", "0.54.0")


def test_nothing_is_left_of_a_release_that_is_not_there(cache: Path) -> None:
    with pytest.raises(Refusal, match="uvicorn 0.13.99 cannot be fetched"):
        releases.unpacked("uvicorn", "0.13.99")
    assert list(cache.iterdir()) == []


# Releases that are new


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch, copy: Path, tmp_path: Path) -> List[str]:
    """Refresh without the property tests: which take a minute, and are run in a test below. What would be proved."""
    before = tmp_path / "before"
    proved: List[str] = []

    def proved_nothing(wanted: refresh.Wanted, texts: refresh.Texts) -> bool:
        if not proved:
            shutil.copytree(copy, before)
        assert same(copy, before), "written before the proof"
        proved.append(str(wanted))
        return True

    monkeypatch.setattr(refresh, "proved", proved_nothing)
    return proved


def take_out(folder: Path, distribution: str, gone: List[str]) -> None:
    """Take releases out of the headers, states with their last one, and whole patches with their last state."""
    for path in {patch.path for patch in patches.catalogue(distribution) if not set(gone).isdisjoint(patch.releases)}:
        text, named = path.read_text(), []
        for state, fields in zip(patches.read(path), re.findall(r"(?m)^Applies-To:.*\n(?:[ P].*\n)*", text)):
            left = [release for release in state.releases if release not in gone]
            applies_to = f"Applies-To: {distribution} {' '.join(left)}\n"
            text = text.replace(fields, applies_to + fields[fields.index("Pristine") :] if left else "")
            named += left
        path.unlink()
        if named:
            (folder / distribution / f"{named[0]}-{named[-1]}.patch").write_text(text)


@pytest.mark.parametrize(
    "distribution, gone",
    [
        pytest.param("uvicorn", ["0.54.0"], marks=pytest.mark.full),
        pytest.param("uvicorn", ["0.36.0", "0.36.1", "0.41.0"], marks=pytest.mark.full),
        ("uvicorn", ["0.24.0.post1", "0.13.1", "0.53.0", "0.13.0", "0.17.0"]),  # The last one is yanked
        # All whose file is the same, and a whole patch
        pytest.param("uvicorn", ["0.33.0", "0.34.0", "0.34.1", "0.34.2", "0.34.3", "0.35.0"], marks=pytest.mark.full),
        pytest.param("uvicorn", ["0.19.0"], marks=pytest.mark.full),
        # Whose file is as in 0.28.1, but not what the patch does
        pytest.param("uvicorn", ["0.29.0"], marks=pytest.mark.full),
        pytest.param("uvicorn-worker", ["0.3.0"], marks=pytest.mark.full),
        pytest.param("gunicorn", ["20.1.0", "22.0.0"], marks=pytest.mark.full),
        ("gunicorn", ["27.0.1", "25.1.0", "26.0.0"]),  # The patch of their neighbours fits, at other lines
    ],
    ids=str,
)
def test_releases_taken_out_come_back(distribution: str, gone: List[str], copy: Path, unproved: List[str]) -> None:
    take_out(copy, distribution, gone)
    assert not same(copy, ORIGINAL)
    assert refresh.main([f"{distribution}=={release}" for release in gone]) == 0
    assert unproved == [f"{distribution} {release}" for release in gone]
    assert same(copy, ORIGINAL)


@pytest.mark.parametrize("spelling, release", [("0.17.0", "0.17.0"), ("0.18", "0.18.0")])
def test_release_that_a_patch_names(
    spelling: str, release: str, copy: Path, unproved: List[str], capsys: Captured
) -> None:
    assert refresh.main([spelling]) == 0
    assert capsys.readouterr().out == (
        f"uvicorn {release}: 0.15.0-0.18.3.patch names it already\n"
        f"nothing to write: all of {copy} follows from the newest patches\n"
        "nothing is left to do\n"
    )
    assert not unproved


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
    answer = subprocess.run([str(ROOT / "scripts" / "refresh.sh"), "--help"], cwd="/", capture_output=True, text=True)
    assert answer.returncode == 0 and "exit status: 0 done" in answer.stdout


def test_release_that_is_not_published(copy: Path, capsys: Captured) -> None:
    assert refresh.main(["0.13.99"]) == 2
    assert "no version of uvicorn==0.13.99" in capsys.readouterr().err


Change = Callable[[str], str]  # Of workers.py
Publish = Callable[[str, str, Change], None]  # Like which release, as which one, with which change


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publishes, for this test, a release that never was: one that was, with a change, or without workers.py if ""."""
    index, cache = tmp_path / "index", tmp_path / "releases"
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    cache.mkdir()
    for release in releases.CACHE.iterdir():
        (cache / release.name).symlink_to(release)
    monkeypatch.setattr(releases, "CACHE", cache)

    def make_up(like: str, release: str, change: Change) -> None:
        published = wheel.installed("uvicorn", [str(releases.unpacked("uvicorn", like))])
        published["uvicorn/workers.py"] = change(published["uvicorn/workers.py"].decode()).encode()
        files = {
            name.replace(f"{like}.dist-info", f"{release}.dist-info"): data.replace(
                f"Version: {like}\n".encode(), f"Version: {release}\n".encode()
            )
            for name, data in published.items()
            if data
        }
        wheel.pack(files, index)

    return make_up


SERVE = "    async def _serve(self)"


def replacing(old: str, new: str) -> Change:
    return lambda text: text.replace(old, new)


changed = replacing("an ASGI consumer callable,", "an ASGI application,")  # Beside what the patch changes
moved = replacing(SERVE, f"    answer = 42\n\n{SERVE}")  # Away from it


def test_release_that_only_moves_lines(publish: Publish, copy: Path, unproved: List[str], capsys: Captured) -> None:
    publish("0.54.0", "0.55.0", moved)
    assert refresh.main(["0.55"]) == 0
    path = copy / "uvicorn" / "0.36.0-0.55.0.patch"
    assert f"as in no other, but {path.name} fits at other lines, as in 0.54.0\n" in capsys.readouterr().out
    older, newer = patches.read(path)
    assert newer.releases == ("0.55.0",) and older.releases == NEWEST.releases and older.patched == NEWEST.patched
    assert not (copy / "uvicorn" / NEWEST.path.name).exists()
    assert refresh.main([]) == 0
    assert patches.read(path) == [older, newer]


def test_changed_release_becomes_the_source(
    publish: Publish, copy: Path, unproved: List[str], capsys: Captured
) -> None:
    publish("0.54.0", "0.55.0", changed)
    assert refresh.main(["0.55"]) == 0
    assert unproved == ["uvicorn 0.55.0"]
    new, said = patches.find("uvicorn", "0.55.0"), capsys.readouterr().out
    assert new and new.path.name == "0.55.0.patch" and new.text in said, "shown for review"
    assert new.revision == NEWEST.revision
    stale, names, *others = said.partition("left to do:\n")[2].splitlines()
    assert re.fullmatch(
        r"  patches/upstream/uvicorn: the series is stale: 000\d-.*\.patch does not apply to 0\.55\.0 as it is", stale
    )
    letter = "patches/upstream/uvicorn/0000-cover-letter.md,"
    assert {"README.md,", "README.zh-CN.md,", "docs/moments.svg,", letter} <= set(names.split()), names
    assert names.endswith(": name 0.54.0, see whether 0.55.0 takes its place")
    assert others == ["  CHANGELOG.md: name uvicorn 0.55.0"]
    before, after = (
        (releases.unpacked("uvicorn", release) / "uvicorn" / "workers.py").read_bytes()
        for release in ("0.54.0", "0.55.0")
    )
    [part], [old] = new.parts, NEWEST.parts
    assert part.apply(after).decode() == changed(old.apply(before).decode())
    assert refresh.main([]) == 0
    new.path.unlink()
    assert "0.55.0" in patches.published("uvicorn"), "what the fork is made from is pinned"
    assert f"uvicorn-0.55.0+usr1.{NEWEST.revision}-" in (copy / "uvicorn" / patches.FORKS).read_text()
    for hashes in (patches.PUBLISHED, patches.FORKS):
        shutil.copy(ORIGINAL / "uvicorn" / hashes, copy / "uvicorn")
    assert same(copy, ORIGINAL), "nothing else has changed"


ALL = replacing("  for s in self.SIGNALS:\n", "  for s in self.ALL:\n")
COMMENT = replacing("  # Don't let SIGUSR1", "  # Do not let SIGUSR1")


@pytest.mark.parametrize(
    "made, status, said",
    [
        (("0.54.0", "0.55.0", ALL), 3, "Write {}/uvicorn/0.55.0.patch by hand"),
        (("0.18.3", "0.18.4", ALL), 3, "what is different in uvicorn 0.18.4"),  # Its patch is made from the newest
        (("0.54.0", "0.55.0", COMMENT), 3, "cannot be made from the patch of uvicorn 0.55.0"),
        (
            ("0.54.0", "0.55.0", lambda text: ""),
            2,
            "uvicorn 0.55.0: expected uvicorn/workers.py in its wheel, found none",
        ),
    ],
)
def test_release_that_takes_a_person(
    made: Tuple[str, str, Change],
    status: int,
    said: str,
    publish: Publish,
    copy: Path,
    unproved: List[str],
    capsys: Captured,
) -> None:
    publish(*made)
    assert refresh.main([made[1]]) == status
    assert said.format(copy) in capsys.readouterr().err
    assert same(copy, ORIGINAL) and not unproved


def test_difference_that_only_the_newest_has(
    publish: Publish, copy: Path, unproved: List[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has to be said the other way round."""
    there = Replacement("class WorkerServer(Server):", "class WorkerServer(Server):  # Of 0.55.0")
    also(monkeypatch, difference("0.55.0", "0.55.0", there))
    publish("0.54.0", "0.55.0", changed)
    assert refresh.main(["0.55.0"]) == 3
    assert "0.30.0-0.54.0.patch" in capsys.readouterr().err
    assert same(copy, ORIGINAL) and not unproved


BOOT = Path("tests", "properties", "test_boot.py")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this one, in a path that has a space, with one of the signal properties only."""
    path = tmp_path / "the copy"
    for name in ("scripts", "tests", "patches"):
        shutil.copytree(ROOT / name, path / name)
    shutil.copy(ROOT / "setup.cfg", path)
    for test in (path / BOOT).parent.glob("test_*.py"):
        if test.name != BOOT.name:
            test.unlink()
    monkeypatch.setattr(refresh, "ROOT", path)
    return path


def test_property_that_fails_on_the_release(
    publish: Publish, repository: Path, copy: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")  # Which would prove nothing
    publish("0.54.0", "0.55.0", lambda text: f"{text}\n\n1 / 0\n")
    assert refresh.main(["0.55.0"]) == 1
    assert "the property tests fail on uvicorn 0.55.0; nothing is written" in capfd.readouterr().err
    assert same(copy, ORIGINAL)


COMPARED = '''
def test_boot(published):
    """There is a published uvicorn to compare the new one with."""
    assert "uvicorn" in __import__("os").listdir(published["PYTHONPATH"].partition(":")[0])
'''


def test_proof_with_the_patch_in_place(copy: Path, publish: Publish, repository: Path, capfd: Captured) -> None:
    """What is compared with the published release is tested, too: the tests know the patch before it is written."""
    (repository / BOOT).write_text(COMPARED)
    publish("0.54.0", "0.55.0", changed)
    assert refresh.main(["0.55.0"]) == 0
    assert "1 of 1 promise holds here" in capfd.readouterr().out


@pytest.mark.parametrize("why", ["left-out.diff does not apply to ", "it does not end in what "])
def test_series_that_ends_in_something_else(why: str, copy: Path, capsys: Captured) -> None:
    left_out = copy / "upstream" / "gunicorn" / "left-out.diff"
    text = left_out.read_text()
    left_out.write_text(
        text[: text.rindex("\ndiff --git") + 1] if why.startswith("it") else text.replace("\n ", "\n x")
    )
    assert refresh.main([]) == 0
    said = capsys.readouterr().out
    assert f"\nleft to do:\n  patches/upstream/gunicorn: the series is stale: {why}" in said, said
