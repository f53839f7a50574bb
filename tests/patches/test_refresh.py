"""Keeping the patches in step with upstream: scripts/refresh.sh."""

import calendar
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest
from usr1 import patches, refresh, releases

from patches import madeup

ORIGINAL = patches.PATCHES
ROOT = ORIGINAL.parent


def same(left: Path, right: Path) -> bool:
    """Whether two folders of patches have the same files, byte for byte."""
    return subprocess.run(["diff", "--recursive", str(left), str(right)]).returncode == 0


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the patches, which this process takes for the patches."""
    folder = tmp_path / "patches"
    for distribution in patches.DISTRIBUTIONS:
        shutil.copytree(ORIGINAL / distribution, folder / distribution)
    monkeypatch.setattr(patches, "PATCHES", folder)
    monkeypatch.setattr(refresh, "WORK", tmp_path / "work")
    return folder


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch, copy: Path, tmp_path: Path) -> List[str]:
    """Refresh without the property tests: which take a minute, and are run in a test below. What would be proved."""
    before = tmp_path / "before"
    proved: List[str] = []

    def proved_nothing(stage: refresh.Stage, wanted: refresh.Wanted) -> bool:
        if not proved:
            shutil.copytree(copy, before)
        assert same(copy, before), "written before the proof"
        patch = next(patch for patch in stage.patches(wanted.distribution) if wanted.release in patch.releases)
        patch.apply(refresh.published_file(wanted.distribution, wanted.release, patch.target))
        wanted.work.mkdir(parents=True, exist_ok=True)
        proved.append(str(wanted))
        return True

    monkeypatch.setattr(refresh, "proved", proved_nothing)
    return proved


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose wheels are published for this test, on top of what is."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setattr(releases, "CACHE", tmp_path / "releases")
    return folder


def take_out(folder: Path, distribution: str, gone: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take releases out of the headers, and whole patches with their last one."""
    for patch in patches.catalogue(distribution):
        left = [release for release in patch.releases if release not in gone]
        if len(left) == len(patch.releases):
            continue
        [day] = re.findall(r"Last-Update: (\d+)-(\d+)-(\d+)\n", patch.path.read_text())
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(calendar.timegm((*map(int, day), 0, 0, 0))))
        text = re.sub(
            r"(?m)^Applies-To:.*\n(?: .*\n)*", f"Applies-To: {distribution} {' '.join(left)}\n", patch.path.read_text()
        )
        patch.path.unlink()
        if left:
            (folder / distribution / f"{left[0]}-{left[-1]}.patch").write_text(text)


@pytest.mark.parametrize(
    "distribution, gone",
    [
        pytest.param("uvicorn", ["0.54.0"], marks=pytest.mark.full),
        pytest.param("uvicorn", ["0.36.0", "0.36.1", "0.41.0"], marks=pytest.mark.full),
        ("uvicorn", ["0.24.0.post1", "0.13.1", "0.53.0", "0.13.0", "0.17.0"]),  # The last one is yanked
        ("uvicorn", ["0.33.0", "0.34.0", "0.34.1", "0.34.2", "0.34.3", "0.35.0"]),  # A whole patch, rebased
        ("uvicorn-worker", ["0.3.0"]),
    ],
    ids=str,
)
def test_releases_taken_out_come_back(
    distribution: str, gone: List[str], copy: Path, unproved: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_out(copy, distribution, gone, monkeypatch)
    assert not same(copy, ORIGINAL)
    assert refresh.main([f"{distribution}=={release}" for release in gone]) == 0
    assert unproved == [f"{distribution} {release}" for release in gone]
    for name in patches.DISTRIBUTIONS:
        assert same(copy / name, ORIGINAL / name)
    assert not list(refresh.WORK.iterdir())


def test_all_that_is_missing_comes_back(copy: Path, unproved: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    take_out(copy, "uvicorn", ["0.16.0", "0.24.0.post1", "0.54.0"], monkeypatch)
    assert refresh.main([]) == 0
    assert unproved == ["uvicorn 0.16.0", "uvicorn 0.24.0.post1", "uvicorn 0.54.0"]
    assert same(copy / "uvicorn", ORIGINAL / "uvicorn")


@pytest.mark.parametrize("spelling, release", [("0.17.0", "0.17.0"), ("0.18", "0.18.0")])
def test_release_that_a_patch_names(
    spelling: str, release: str, copy: Path, unproved: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh.main([spelling]) == 0
    assert capsys.readouterr().out == f"uvicorn {release}: 0.17.0-0.18.3.patch names it already\n"
    assert not unproved


def test_last_update_is_today_unless_told(copy: Path, unproved: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    take_out(copy, "uvicorn-worker", ["0.3.0"], monkeypatch)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    days = [refresh._today()]
    assert refresh.main(["uvicorn-worker==0.3.0"]) == 0
    days.append(refresh._today())
    text = (copy / "uvicorn-worker" / "0.2.0-0.3.0.patch").read_text()
    assert any(f"\nLast-Update: {day}\n" in text for day in days)


def test_check_names_what_is_missing(
    copy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uvicorn-0.12.3", "uvicorn-0.54.0", "uvicorn_worker-0.4.0"):
        (tmp_path / f"{name}-py3-none-any.whl").touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert refresh.main(["--check"]) == 0
    assert "uvicorn: all published releases have a patch, up to 0.54.0\n" in capsys.readouterr().out
    (tmp_path / "uvicorn-0.55.0-py3-none-any.whl").touch()
    assert refresh.main(["--check"]) == 1
    assert "uvicorn 0.55.0: no patch names it\n" in capsys.readouterr().out
    assert same(copy / "uvicorn", ORIGINAL / "uvicorn")


def test_no_index(copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert refresh.main(["--check"]) == 2
    assert "No matching distribution found for uvicorn" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["starlette==1.0"], ["--check", "0.54.0"], ["--frobnicate"]])
def test_wrong_arguments(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        refresh.main(arguments)
    assert stop.value.code == 2
    assert "usage: scripts/refresh.sh" in capsys.readouterr().err


@pytest.mark.measured
def test_help_of_the_script() -> None:
    answer = subprocess.run([str(ROOT / "scripts" / "refresh.sh"), "--help"], cwd="/", capture_output=True, text=True)
    assert answer.returncode == 0 and "exit status: 0 done" in answer.stdout


def test_release_that_is_not_published(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refresh.main(["0.13.99"]) == 2
    assert "no version of uvicorn==0.13.99" in capsys.readouterr().err


SERVE, ANSWER = "    async def _serve(self)", "    answer = 42\n\n"


def changed(name: str, text: str) -> str:
    """A change of workers.py away from what the patch changes."""
    return text.replace(SERVE, ANSWER + SERVE) if name == "uvicorn/workers.py" else text


def test_changed_release_is_rebased(
    copy: Path, unproved: List[str], index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    madeup.make(index, "0.54.0", "0.55.0", changed)
    assert refresh.main(["0.55.0"]) == 0
    new, newest = patches.find("uvicorn", "0.55.0"), patches.find("uvicorn", "0.54.0")
    assert new and newest and new.path.name == "0.55.0.patch" and new.revision == 1
    before = (releases.unpacked("uvicorn", "0.55.0") / new.target).read_bytes()
    pristine = (releases.unpacked("uvicorn", "0.54.0") / new.target).read_bytes()
    assert new.apply(before).decode() == newest.apply(pristine).decode().replace(SERVE, ANSWER + SERVE)
    assert new.text in capsys.readouterr().out, "shown for review"
    assert newest.path.read_bytes() == (ORIGINAL / "uvicorn" / newest.path.name).read_bytes()


def test_conflict_is_left_for_a_person(
    copy: Path, unproved: List[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was with uvicorn 0.36.0: its imports changed where the patch changes them."""
    newest = patches.catalogue("uvicorn")[-1]
    take_out(copy, "uvicorn", list(newest.releases), monkeypatch)
    shutil.copytree(copy, copy.parent / "without")
    file = refresh.WORK / "uvicorn-0.36.0" / "workers.py"
    assert refresh.main(["0.36.0"]) == 3
    assert str(file) in capsys.readouterr().err
    markers = file.read_text()
    assert re.search(r"(?m)^<{7} 0.35.0 patched$", markers) and re.search(r"(?m)^>{7} 0.36.0$", markers)
    assert refresh.main(["0.36.0"]) == 3, "still has markers"
    assert file.read_text() == markers
    assert same(copy, copy.parent / "without") and not unproved

    file.write_bytes(newest.apply((releases.unpacked("uvicorn", "0.36.0") / newest.target).read_bytes()))
    assert refresh.main(list(newest.releases)) == 0
    found = patches.find("uvicorn", "0.36.0")
    assert found and found.text == newest.text and found.releases == newest.releases
    assert not file.exists()


def test_file_that_does_not_merge_at_all(
    copy: Path, unproved: List[str], index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    madeup.make(index, "0.54.0", "0.55.0", lambda name, text: text + "\0" if name == "uvicorn/workers.py" else text)
    assert refresh.main(["0.55.0"]) == 2
    assert "Cannot merge binary files" in capfd.readouterr().err


def test_server_that_takes_signals_over_elsewhere(
    copy: Path, unproved: List[str], index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    madeup.make(index, "0.54.0", "0.55.0", lambda name, text: text.replace("capture_signals", "hold_signals"))
    assert refresh.main(["0.55.0"]) == 3
    assert "found no method known; write this patch by hand" in capsys.readouterr().err
    assert same(copy / "uvicorn", ORIGINAL / "uvicorn") and not unproved


def test_release_without_the_file(
    copy: Path, unproved: List[str], index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    madeup.make(index, "0.54.0", "0.55.0", lambda name, text: "" if name == "uvicorn/workers.py" else text)
    assert refresh.main(["0.55.0"]) == 2
    assert "uvicorn 0.55.0: expected uvicorn/workers.py in its wheel, found none" in capsys.readouterr().err


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of this one, in a path that has a space, with one of the signal properties only."""
    path = tmp_path / "the copy"
    path.mkdir()
    for name in ("scripts", "tests", "patches", "setup.cfg"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path / name)
    for test in (path / "tests" / "properties").glob("test_*.py"):
        if test.name != "test_boot.py":
            test.unlink()
    return path


def test_property_that_fails_on_the_release(
    copy: Path, index: Path, repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, text: str) -> str:
        return text + "\n\n1 / 0\n" if name == "uvicorn/workers.py" else text

    monkeypatch.setattr(refresh, "ROOT", repository)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")  # Which would prove nothing
    madeup.make(index, "0.54.0", "0.55.0", broken)
    assert refresh.main(["0.55.0"]) == 1
    assert "the property tests fail on uvicorn 0.55.0; nothing is written" in capfd.readouterr().err
    assert same(copy / "uvicorn", ORIGINAL / "uvicorn")
    assert (refresh.WORK / "uvicorn-0.55.0" / "workers.py").exists()


def test_script_proves_a_changed_release(repository: Path, index: Path) -> None:
    """The whole of it: the script in a copy of the repository."""
    madeup.make(index, "0.54.0", "0.55.0", changed)
    (repository / Path(sys.prefix).name).symlink_to(sys.prefix)
    answer = subprocess.run([str(repository / "scripts" / "refresh.sh")], cwd="/", text=True, capture_output=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert " passed" in answer.stdout
    assert "Applies-To: uvicorn 0.55.0\n" in (repository / "patches" / "uvicorn" / "0.55.0.patch").read_text()


@pytest.fixture
def edited(copy: Path) -> Path:
    path = copy / "uvicorn" / "0.36.0-0.54.0.patch"
    text = path.read_text()
    changed = text.replace("+        pass  # The path names no", "+        # Why:\n+        pass  # The path names no")
    assert changed != text
    path.write_text(changed)
    return path


def test_repin_makes_an_edited_patch_true(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = patches.read(ORIGINAL / "uvicorn" / edited.name)
    pristine = refresh.published_file("uvicorn", "0.54.0", original.target)
    assert refresh.main(["--repin", str(edited)]) == 0
    assert "revision 2" in capsys.readouterr().out
    patch = patches.read(edited)
    assert (patch.revision, patch.releases) == (original.revision + 1, original.releases)
    assert patch.apply(pristine).count(b"# Why:\n") == 1
    assert refresh.main(["--repin", str(edited)]) == 0, "nothing to do"
    assert patches.read(edited).revision == original.revision + 1


def test_repin_refuses_what_does_not_apply(edited: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = copy / "uvicorn" / "0.29.0.patch"
    other.write_text(other.read_text().replace(" import asyncio\n", " import trio\n"))
    before = edited.read_bytes(), other.read_bytes()
    assert refresh.main(["--repin", str(edited), str(other)]) == 2
    assert "0.29.0.patch: does not apply to uvicorn 0.29.0" in capsys.readouterr().err
    assert (edited.read_bytes(), other.read_bytes()) == before


def test_repin_refuses_another_pristine_file(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited.write_text(edited.read_text().replace("Pristine-SHA256: 9", "Pristine-SHA256: 0"))
    assert refresh.main(["--repin", str(edited)]) == 2
    assert "Pristine-SHA256 is not that of uvicorn 0.36.0" in capsys.readouterr().err


def test_repin_of_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert refresh.main(["--repin", str(tmp_path / "none.patch")]) == 2
    assert "No such file" in capsys.readouterr().err
