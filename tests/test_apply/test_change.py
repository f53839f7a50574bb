"""
What is said, and what is undone, when something fails that seldom does; and two runs at once.

And a patch of several files: all of them or none, whatever revision each is at.
"""

import errno
import fcntl
import os
import shutil
import sys
from typing import Callable, Dict

import pytest
from pytest import MonkeyPatch
from usr1 import patches
from usr1.apply import apply, change, installed
from usr1.apply.environment import Environment
from usr1.apply.files import Tree
from usr1.apply.installed import State
from usr1.upkeep import refresh
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
@pytest.mark.parametrize("option, said", [("--no-tests", ", as before"), ("--revert", " put back as it was published")])
def test_another_waits_and_says_so(option: str, said: str, environment: Environment, run: Run) -> None:
    """And looks at nothing before; but --check does not wait."""
    with change.alone(environment):
        waiting = trees.start(*trees.MODULE, option, environment.path)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == f"waiting for another run on {environment.path} to end ...\n"
        assert waiting.poll() is None
        run("--check", environment, status=1)
        change.make(environment, [(one, one.patched) for one in installed.find(environment)])
    assert said in waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0


ONLY = ("--only", "gunicorn")


def test_only_what_is_asked_for(environment: Environment, run: Run) -> None:
    run("--no-tests", *ONLY, environment)
    states = [trees.only(environment, name).state for name in ("gunicorn", "uvicorn")]
    assert states == [State.PATCHED, State.PRISTINE]
    run("--check", *ONLY, environment)
    run("--check", environment, status=1)
    run("--check", *ONLY, "--only", "uvicorn", environment, status=1)
    run("--revert", "--only", "uvicorn", environment)
    assert trees.only(environment, "gunicorn").state is State.PATCHED
    run.refused("uvicorn-worker is not installed in ", "--no-tests", "--only", "uvicorn-worker", environment)


def test_some_of_them_patched(environment: Environment, run: Run) -> None:
    """By hand, or by a run that was killed."""
    pristine = trees.snapshot(environment.path)
    file = trees.only(environment, "gunicorn").files[1]
    run("--no-tests", *ONLY, environment)
    patched = trees.snapshot(environment.path)
    for option, content, result in (("--revert", file.content, pristine), ("--no-tests", file.patched, patched)):
        file.path.write_bytes(content)
        assert ": partly patched (its patch: patches/gunicorn/" in run("--check", *ONLY, environment, status=1).out
        run(option, *ONLY, environment)
        assert trees.snapshot(environment.path) == result


@pytest.mark.parametrize("number", [0, -1])
def test_one_changed_by_hand(number: int, environment: Environment, run: Run) -> None:
    path = trees.only(environment, "gunicorn").files[number].path
    path.write_text("by hand\n")
    said = run.refused(f"{path} was changed by hand", "--no-tests", environment)
    assert f"  found:    SHA-256 {patches.sha256(path.read_bytes())}\n" in said
    assert "install --force-reinstall --no-deps gunicorn==" in said
    assert said.endswith(", then run this again; or leave it as it is: --only uvicorn\n")


def test_an_earlier_revision_of_other_files(environment: Environment, run: Run, monkeypatch: MonkeyPatch) -> None:
    """Of one that the current revision changes too, and of one that it does not."""
    pristine = trees.snapshot(environment.path)
    run("--no-tests", *ONLY, environment)
    patched = trees.snapshot(environment.path)
    run("--revert", *ONLY, environment)
    copy = shutil.copytree(patches.PATCHES, environment.path.with_name("patches"))
    monkeypatch.setattr(patches, "PATCHES", copy)
    newest = refresh.newest("gunicorn", patches.catalogue("gunicorn"))
    files = ("gunicorn/glogging.py", "gunicorn/util.py")
    texts = {file: (environment.site_packages / file).read_text() for file in files}
    earlier = Change("Say a word\nOne.", {file: Edit(text, f"{text}# old\n") for file, text in texts.items()})
    current = newest.path.read_text()
    newest.path.write_text(refresh.composed(newest.path, newest, [refresh.State([*newest.releases], earlier)]))
    run("--no-tests", *ONLY, environment)
    superseded = copy / "gunicorn" / "superseded"
    superseded.mkdir()
    newest.path.rename(superseded / newest.path.name)
    newest.path.write_text(current)
    assert ": patched (patches/gunicorn/superseded/" in run("--check", *ONLY, environment).out
    other = shutil.copytree(environment.path, environment.path.with_name("other"), symlinks=True)
    for option, path, result in (("--no-tests", environment.path, patched), ("--revert", other, pristine)):
        run(option, *ONLY, path)
        assert trees.snapshot(path) == result
