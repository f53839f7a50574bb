"""A patch of several files: all of them or none, whatever revision each is at. Made up, for the newest gunicorn."""

import shutil
from pathlib import Path
from typing import Dict, Tuple

import pytest
from usr1 import patches
from usr1.apply import apply, installed
from usr1.apply.environment import Environment
from usr1.apply.installed import State
from usr1.upkeep import refresh, releases
from usr1.upkeep.backports import Change, Edit

from test_apply import trees

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


def words(environment: Environment) -> Tuple[str, ...]:
    """The last lines of the files."""
    lasts = ((environment.site_packages / file).read_text().splitlines()[-1] for file in FILES)
    return tuple(last[2:] if last.startswith("# ") else "" for last in lasts)


def put(environment: Environment, file: str, word: str) -> None:
    """As by hand."""
    path = environment.site_packages / file
    path.write_text(f"{path.read_text()}# {word}\n")


def only(environment: Environment) -> installed.Installed:
    return trees.only(environment, "gunicorn")


def test_only_what_is_asked_for(patch: Path, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main(["--no-tests", *ONLY, str(environment.path)]) == 0
    assert (only(environment).state, trees.only(environment).state) == (State.PATCHED, State.PRISTINE)
    assert apply.main(["--check", *ONLY, str(environment.path)]) == 0
    assert apply.main(["--check", str(environment.path)]) == 1
    assert apply.main(["--check", *ONLY, "--only", "uvicorn", str(environment.path)]) == 1
    assert apply.main(["--revert", "--only", "uvicorn", str(environment.path)]) == 0
    assert only(environment).state is State.PATCHED
    capsys.readouterr()
    assert apply.main(["--no-tests", "--only", "uvicorn-worker", str(environment.path)]) == 2
    trees.check_four_lines(capsys.readouterr().err, "uvicorn-worker is not installed in ")


@pytest.mark.parametrize("option, expected", [("--no-tests", ("new",) * 3), ("--revert", ("",) * 3)])
def test_some_of_them_patched(
    option: str, expected: Tuple[str, ...], patch: Path, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand, or by a run that was killed."""
    put(environment, FILES[1], "new")
    assert apply.main(["--check", *ONLY, str(environment.path)]) == 1
    assert ": partly patched (its patch: patches/gunicorn/" in capsys.readouterr().out
    assert apply.main([option, *ONLY, str(environment.path)]) == 0
    assert words(environment) == expected
    assert trees.disagreements(environment) == []


@pytest.mark.parametrize("file", FILES)
def test_one_changed_by_hand(
    file: str, patch: Path, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    put(environment, file, "by hand")
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    said = capsys.readouterr().err
    path = environment.site_packages / file
    trees.check_four_lines(said, f"{path} was changed by hand")
    assert f"  found:    SHA-256 {patches.sha256(path.read_bytes())}\n" in said
    assert "install --force-reinstall --no-deps gunicorn==" in said
    assert said.endswith(", then run this again; or leave it as it is: --only uvicorn\n")
    assert trees.snapshot(environment.path) == before


EARLIER: Dict[str, Tuple[str, ...]] = {
    "fewer": FILES[1:2],
    "the same": FILES,
    "others": (*FILES[:2], "gunicorn/util.py"),
}


@pytest.mark.parametrize("changed", EARLIER.values(), ids=EARLIER)
@pytest.mark.parametrize("option", ["--no-tests", "--revert"])
def test_an_earlier_revision_of_other_files(
    option: str, changed: Tuple[str, ...], patch: Path, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    pristine = trees.snapshot(environment.path)
    current = patch.read_text()
    write_patch(patch, "old", *changed)
    assert apply.main(["--no-tests", *ONLY, str(environment.path)]) == 0
    write_patch(patch.parent / "superseded" / patch.name, "old", *changed)
    patch.write_text(current)
    assert apply.main(["--check", *ONLY, str(environment.path)]) == 0
    assert ": patched (patches/gunicorn/superseded/" in capsys.readouterr().out
    assert apply.main([option, *ONLY, str(environment.path)]) == 0
    assert words(environment) == (("new",) * 3 if option == "--no-tests" else ("",) * 3)
    assert trees.disagreements(environment) == []
    assert "# old" not in (environment.site_packages / "gunicorn" / "util.py").read_text()
    assert apply.main(["--revert", *ONLY, str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == pristine
