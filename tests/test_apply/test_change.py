"""
What is said, and what is undone, when something fails that seldom does; and several runs at once.

And a patch of several files: all of them or none, whatever revision each is at.
"""

import errno
import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from pytest import MonkeyPatch
from usr1 import patches
from usr1.apply import apply, change, installed
from usr1.apply.environment import Environment
from usr1.apply.files import Tree
from usr1.apply.installed import State
from usr1.upkeep import refresh, releases
from usr1.upkeep.backports import Change, Edit

from test_apply import trees
from test_apply.trees import Run

Break = Callable[[MonkeyPatch], object]

#: What fails, and the words of the refusal. RECORD is renamed first, then the sources of several distributions.
FAILURES: Dict[str, "tuple[Break, str]"] = {
    "the first rename": (lambda patch: trees.before(patch, "rename", 1, lambda: trees.fail(errno.EPERM)), "lsattr"),
    "a later one": (lambda patch: trees.before(patch, "rename", 3, lambda: trees.fail(errno.ENOSPC)), "make room"),
    "what was written": (lambda patch: patch.setattr(os, "fsync", lambda file: os.ftruncate(file, 7)), "was read back"),
    "locks": (lambda patch: patch.setattr(fcntl, "flock", lambda *_: trees.fail(errno.ENOLCK)), "No locks available"),
}


@pytest.mark.parametrize("failure, said", FAILURES.values(), ids=FAILURES)
def test_what_fails_is_undone(
    failure: Break, said: str, environment: Environment, run: Run, monkeypatch: MonkeyPatch
) -> None:
    failure(monkeypatch)
    assert said in run.refused("nothing was changed", "--no-tests", environment)


def test_bytecode_has_left_the_disk_before_the_source_changes(
    environment: Environment, run: Run, monkeypatch: MonkeyPatch
) -> None:
    """Some is never checked against it."""
    before = installed.find(environment)
    synced = []
    monkeypatch.setattr(Tree, "sync", lambda tree, paths: synced.append((sorted(paths), installed.find(environment))))
    run("--no-tests", environment)
    paths, then = synced[0]
    assert paths == sorted(path for one in before for source in one.contents for path in trees.caches(source))
    assert not any(path.exists() for path in paths)
    assert [one.contents for one in then] == [one.contents for one in before]


def test_what_cannot_be_put_back_is_said(environment: Environment, run: Run, monkeypatch: MonkeyPatch) -> None:
    pristine = trees.snapshot(environment.path)
    new = sum(len(one.written) for one in installed.find(environment))
    with monkeypatch.context() as patched:
        trees.before(patched, "rename", 3, trees.fail)
        trees.before(patched, "write", new + 1, trees.fail)  # The first that is to be put back
        assert "could not be undone" in run("--no-tests", environment, status=3).err
    run("--revert", environment)
    assert trees.snapshot(environment.path) == pristine


def test_told_to_end_while_changing(environment: Environment, monkeypatch: MonkeyPatch) -> None:
    before = trees.snapshot(environment.path)
    monkeypatch.setattr(change, "leftovers", lambda tree, installed: sys.exit(143))
    with pytest.raises(SystemExit):
        apply.main(["--no-tests", str(environment.path)])
    assert trees.snapshot(environment.path) == before


@pytest.mark.measured
def test_another_waits_and_says_so(environment: Environment, run: Run) -> None:
    """And looking does not wait."""
    with change.alone(environment):
        waiting = trees.start(*trees.MODULE, "--no-tests", environment.path)
        assert waiting.stdout is not None
        said = waiting.stdout.readline()
        assert said == f"waiting for another run on {environment.path} to end ...\n"
        assert waiting.poll() is None
        run("--check", environment, status=1)
    assert waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0


def test_many(environment: Environment, run: Run) -> None:
    """Applies and reverts, all at once: each succeeds, and the last one's result is whole."""
    pristine = trees.snapshot(environment.path)
    options = ("--no-tests", "--revert") * 6
    runs = [trees.start(*trees.MODULE, option, environment.path) for option in options]
    assert [(one.communicate()[0], one.returncode)[1] for one in runs] == [0] * 12
    one = trees.only(environment)
    assert one.state in (State.PRISTINE, State.PATCHED) and one.finished
    assert trees.disagreements(environment) == []
    assert trees.stale(environment) == []
    run("--revert", environment)
    assert trees.snapshot(environment.path) == pristine, "no lock file is left"


#: Of a patch that is made up, for the newest gunicorn.
FILES = ("gunicorn/arbiter.py", "gunicorn/glogging.py", "gunicorn/workers/base.py")
ONLY = ("--only", "gunicorn")


def write_patch(path: Path, word: str, *files: str) -> None:
    like = refresh.newest("gunicorn", patches.catalogue("gunicorn"))
    folder = releases.unpacked("gunicorn", like.releases[-1])
    texts = {file: (folder / file).read_text() for file in files}
    edits = {file: Edit(text, f"{text}# {word}\n") for file, text in texts.items()}
    path.parent.mkdir(exist_ok=True)
    state = refresh.State(list(like.releases), Change("Say a word\nOne.", edits))
    path.write_text(refresh.composed(path, like, [state]))


@pytest.fixture
def patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(patches, "PATCHES", shutil.copytree(patches.PATCHES, tmp_path / "patches"))
    path = refresh.newest("gunicorn", patches.catalogue("gunicorn")).path
    write_patch(path, "new", *FILES)
    return path


def words(environment: Environment) -> List[str]:
    """What has been added to the files."""
    lasts = ((environment.site_packages / file).read_text().splitlines()[-1] for file in FILES)
    return [last[2:] if last.startswith("# ") else "" for last in lasts]


def put(environment: Environment, file: str, word: str) -> Path:
    """As by hand."""
    path = environment.site_packages / file
    path.write_text(f"{path.read_text()}# {word}\n")
    return path


def test_only_what_is_asked_for(patch: Path, environment: Environment, run: Run) -> None:
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
def test_some_of_them_patched(option: str, word: str, patch: Path, environment: Environment, run: Run) -> None:
    """By hand, or by a run that was killed."""
    put(environment, FILES[1], "new")
    assert ": partly patched (its patch: patches/gunicorn/" in run("--check", *ONLY, environment, status=1).out
    run(option, *ONLY, environment)
    assert words(environment) == [word] * 3
    assert trees.disagreements(environment) == []


@pytest.mark.parametrize("file", FILES)
def test_one_changed_by_hand(file: str, patch: Path, environment: Environment, run: Run) -> None:
    path = put(environment, file, "by hand")
    said = run.refused(f"{path} was changed by hand", "--no-tests", environment)
    assert f"  found:    SHA-256 {patches.sha256(path.read_bytes())}\n" in said
    assert "install --force-reinstall --no-deps gunicorn==" in said
    assert said.endswith(", then run this again; or leave it as it is: --only uvicorn\n")


EARLIER = {"fewer": FILES[1:2], "the same": FILES, "others": (*FILES[:2], "gunicorn/util.py")}


@pytest.mark.parametrize("changed", EARLIER)
@pytest.mark.parametrize("option, word", [("--no-tests", "new"), ("--revert", "")])
def test_an_earlier_revision_of_other_files(
    option: str, word: str, changed: str, patch: Path, environment: Environment, run: Run
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
