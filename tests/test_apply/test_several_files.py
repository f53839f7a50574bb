"""A patch of several files: all of them or none, whatever revision each is at. Made up, for the newest gunicorn."""

import shutil
from pathlib import Path
from typing import List

import pytest
from usr1 import patches
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
    name = refresh.newest("gunicorn", patches.catalogue("gunicorn")).path.name
    monkeypatch.setattr(patches, "PATCHES", folder)
    write_patch(folder / "gunicorn" / name, "new", *FILES)
    return folder / "gunicorn" / name


def words(environment: Environment) -> List[str]:
    """What has been added to the files."""
    lasts = ((environment.site_packages / file).read_text().splitlines()[-1] for file in FILES)
    return [last[2:] if last.startswith("# ") else "" for last in lasts]


def put(environment: Environment, file: str, word: str) -> Path:
    """As by hand."""
    path = environment.site_packages / file
    path.write_text(f"{path.read_text()}# {word}\n")
    return path


def test_only_what_is_asked_for(patch: Path, environment: Environment, run: trees.Run) -> None:
    run("--no-tests", *ONLY, environment)
    states = [trees.only(environment, name).state for name in ("gunicorn", "uvicorn")]
    assert states == [State.PATCHED, State.PRISTINE]
    run("--check", *ONLY, environment)
    run("--check", environment, status=1)
    run("--check", *ONLY, "--only", "uvicorn", environment, status=1)
    run("--revert", "--only", "uvicorn", environment)
    assert trees.only(environment, "gunicorn").state is State.PATCHED
    run.refused("uvicorn-worker is not installed in ", "--no-tests", "--only", "uvicorn-worker", environment)


@pytest.mark.parametrize("option, word", [("--no-tests", "new"), ("--revert", "")])
def test_some_of_them_patched(option: str, word: str, patch: Path, environment: Environment, run: trees.Run) -> None:
    """By hand, or by a run that was killed."""
    put(environment, FILES[1], "new")
    assert ": partly patched (its patch: patches/gunicorn/" in run("--check", *ONLY, environment, status=1).out
    run(option, *ONLY, environment)
    assert words(environment) == [word] * 3
    assert trees.disagreements(environment) == []


@pytest.mark.parametrize("file", FILES)
def test_one_changed_by_hand(file: str, patch: Path, environment: Environment, run: trees.Run) -> None:
    path = put(environment, file, "by hand")
    said = run.refused(f"{path} was changed by hand", "--no-tests", environment)
    assert f"  found:    SHA-256 {patches.sha256(path.read_bytes())}\n" in said
    assert "install --force-reinstall --no-deps gunicorn==" in said
    assert said.endswith(", then run this again; or leave it as it is: --only uvicorn\n")


EARLIER = {"fewer": FILES[1:2], "the same": FILES, "others": (*FILES[:2], "gunicorn/util.py")}


@pytest.mark.parametrize("changed", EARLIER)
@pytest.mark.parametrize("option, word", [("--no-tests", "new"), ("--revert", "")])
def test_an_earlier_revision_of_other_files(
    option: str, word: str, changed: str, patch: Path, environment: Environment, run: trees.Run
) -> None:
    pristine = trees.snapshot(environment.path)
    current = patch.read_text()
    write_patch(patch, "old", *EARLIER[changed])
    run("--no-tests", *ONLY, environment)
    write_patch(patch.parent / "superseded" / patch.name, "old", *EARLIER[changed])
    patch.write_text(current)
    assert ": patched (patches/gunicorn/superseded/" in run("--check", *ONLY, environment).out
    run(option, *ONLY, environment)
    assert words(environment) == [word] * 3
    assert trees.disagreements(environment) == []
    assert "# old" not in (environment.site_packages / "gunicorn" / "util.py").read_text()
    run("--revert", *ONLY, environment)
    assert trees.snapshot(environment.path) == pristine
