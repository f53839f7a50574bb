"""A patch of several files: all of them or none, whatever revision each is at. Made up, for the newest gunicorn."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Tuple

import pytest
from usr1 import apply, files, installed, patches, refresh, releases
from usr1.backports import Change, Edit
from usr1.environment import Environment
from usr1.installed import State

from apply import trees

FILES = ("gunicorn/arbiter.py", "gunicorn/glogging.py", "gunicorn/workers/base.py")
ONLY = ("--only", "gunicorn")


def write_patch(path: Path, word: str, *files: str) -> None:
    """One that adds a line with a word to each of these files."""
    like = refresh.newest("gunicorn", patches.catalogue("gunicorn"))
    folder = releases.unpacked("gunicorn", like.releases[-1])
    texts = {file: (folder / file).read_text() for file in files}
    edits = {file: Edit(text, f"{text}# {word}\n") for file, text in texts.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(refresh.composed(path, like, like.releases, Change("Say a word\nOne.", edits)))


@pytest.fixture
def patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "patches"
    shutil.copytree(patches.PATCHES, folder)
    path = refresh.newest("gunicorn", patches.catalogue("gunicorn")).path
    monkeypatch.setattr(patches, "PATCHES", folder)
    path = folder / "gunicorn" / path.name
    write_patch(path, "new", *FILES)
    return path


def words(target: Environment) -> Tuple[str, ...]:
    """The last lines of the files."""
    lasts = ((target.site_packages / file).read_text().splitlines()[-1] for file in FILES)
    return tuple(last[2:] if last.startswith("# ") else "" for last in lasts)


def put(target: Environment, file: str, word: str) -> None:
    """As by hand."""
    path = target.site_packages / file
    path.write_text(f"{path.read_text()}# {word}\n")


def only(target: Environment) -> installed.Installed:
    return trees.only(target, "gunicorn")


def test_there_and_back(patch: Path, target: Environment) -> None:
    pristine = trees.snapshot(target.path)
    assert apply.main(["--no-tests", str(target.path)]) == 0
    assert words(target) == ("new", "new", "new")
    assert only(target).state is State.PATCHED and trees.bytecode(target, only(target)) == []
    assert trees.disagreements(target) == [] and trees.stale(target) == []
    assert apply.main(["--revert", str(target.path)]) == 0
    assert trees.snapshot(target.path) == pristine


def test_only_what_is_asked_for(patch: Path, target: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main(["--no-tests", *ONLY, str(target.path)]) == 0
    assert (only(target).state, trees.only(target).state) == (State.PATCHED, State.PRISTINE)
    assert apply.main(["--check", *ONLY, str(target.path)]) == 0
    assert apply.main(["--check", str(target.path)]) == 1
    assert apply.main(["--check", *ONLY, "--only", "uvicorn", str(target.path)]) == 1
    assert apply.main(["--revert", "--only", "uvicorn", str(target.path)]) == 0
    assert only(target).state is State.PATCHED
    capsys.readouterr()
    assert apply.main(["--no-tests", "--only", "uvicorn-worker", str(target.path)]) == 2
    trees.check_four_lines(capsys.readouterr().err, "uvicorn-worker is not installed in ")


def test_a_dry_run(patch: Path, target: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main(["--dry-run", *ONLY, str(target.path)]) == 0
    command = ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch"]
    diff = capsys.readouterr().out
    subprocess.run(command, input=diff, text=True, cwd=target.site_packages, check=True, stdout=subprocess.PIPE)
    assert words(target) == ("new", "new", "new")


@pytest.mark.parametrize("option, expected", [("--no-tests", ("new",) * 3), ("--revert", ("",) * 3)])
def test_some_of_them_patched(
    option: str, expected: Tuple[str, ...], patch: Path, target: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand, or by a run that was killed."""
    put(target, FILES[1], "new")
    assert apply.main(["--check", *ONLY, str(target.path)]) == 1
    assert ": partly patched (to be patched with patches/gunicorn/" in capsys.readouterr().out
    assert apply.main([option, *ONLY, str(target.path)]) == 0
    assert words(target) == expected
    assert trees.disagreements(target) == []


@pytest.mark.parametrize("file", FILES)
def test_one_changed_by_hand(file: str, patch: Path, target: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    put(target, file, "by hand")
    before = trees.snapshot(target.path)
    assert apply.main(["--no-tests", str(target.path)]) == 2
    said = capsys.readouterr().err
    trees.check_four_lines(said, f"{target.site_packages / file} was changed by hand")
    assert said.endswith(", then run this again; or leave it as it is: --only uvicorn\n")
    assert trees.snapshot(target.path) == before


EARLIER: Dict[str, Tuple[str, ...]] = {
    "fewer": FILES[1:2],
    "the same": FILES,
    "others": (*FILES[:2], "gunicorn/util.py"),
}


@pytest.mark.parametrize("changed", EARLIER.values(), ids=EARLIER)
@pytest.mark.parametrize("option", ["--no-tests", "--revert"])
def test_an_earlier_revision_of_other_files(
    option: str, changed: Tuple[str, ...], patch: Path, target: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    pristine = trees.snapshot(target.path)
    current = patch.read_text()
    write_patch(patch, "old", *changed)
    assert apply.main(["--no-tests", *ONLY, str(target.path)]) == 0
    write_patch(patch.parent / "superseded" / patch.name, "old", *changed)
    patch.write_text(current)
    assert apply.main(["--check", *ONLY, str(target.path)]) == 0
    assert ": patched (patches/gunicorn/superseded/" in capsys.readouterr().out
    assert apply.main([option, *ONLY, str(target.path)]) == 0
    assert words(target) == (("new",) * 3 if option == "--no-tests" else ("",) * 3)
    assert trees.disagreements(target) == []
    assert "# old" not in (target.site_packages / "gunicorn" / "util.py").read_text()
    assert apply.main(["--revert", *ONLY, str(target.path)]) == 0
    assert trees.snapshot(target.path) == pristine


def test_gunicorn_alone(patch: Path, target: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """It can be patched, but the properties are of uvicorn's workers: nothing is proved, and that is said."""
    for path in target.site_packages.glob("uvicorn*"):
        shutil.rmtree(path)
    assert apply.main(["--no-tests", str(target.path)]) == 0
    assert apply.main(["--check", str(target.path)]) == 0
    assert words(target) == ("new", "new", "new")
    assert apply.main(["--revert", str(target.path)]) == 0
    before = trees.snapshot(target.path)
    for option in ([], ["--tests-only"]):
        capsys.readouterr()
        assert apply.main([*option, str(target.path)]) == 2
        said = capsys.readouterr().err
        trees.check_four_lines(said, "uvicorn is not installed in ")
        assert "or patch without tests: --no-tests" in said
    assert trees.snapshot(target.path) == before


def test_one_of_them_cannot_be_written(
    patch: Path, target: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of them: the others are put back."""
    before = trees.snapshot(target.path)
    rename = files.Tree.rename

    def failing(self: files.Tree, new: Path, path: Path) -> None:
        if path == target.site_packages / FILES[-1]:
            raise OSError(5, os.strerror(5), str(path))
        rename(self, new, path)

    monkeypatch.setattr(files.Tree, "rename", failing)
    assert apply.main(["--no-tests", str(target.path)]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert trees.snapshot(target.path) == before
