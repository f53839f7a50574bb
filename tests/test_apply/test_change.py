"""What is said, and what is undone, when something fails that seldom does; and several runs at once."""

import errno
import fcntl
import os
import sys
from typing import Any, Callable, Dict

import pytest
from usr1.apply import apply, change, installed
from usr1.apply.environment import Environment
from usr1.apply.files import Tree
from usr1.apply.installed import State

from test_apply import trees

Break = Callable[[pytest.MonkeyPatch], object]

#: What fails, and the words of the refusal. RECORD is renamed first, then the sources of several distributions.
FAILURES: Dict[str, "tuple[Break, str]"] = {
    "the first rename": (lambda patch: trees.before(patch, "rename", 1, lambda: trees.fail(errno.EPERM)), "lsattr"),
    "a later one": (lambda patch: trees.before(patch, "rename", 3, lambda: trees.fail(errno.ENOSPC)), "make room"),
    "what was written": (lambda patch: patch.setattr(os, "fsync", lambda file: os.ftruncate(file, 7)), "was read back"),
    "locks": (lambda patch: patch.setattr(fcntl, "flock", lambda *_: trees.fail(errno.ENOLCK)), "No locks available"),
}


@pytest.mark.parametrize("failure, said", FAILURES.values(), ids=FAILURES)
def test_what_fails_is_undone(
    failure: Break, said: str, environment: Environment, run: trees.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure(monkeypatch)
    assert said in run.refused("nothing was changed", "--no-tests", environment)


def test_bytecode_has_left_the_disk_before_the_source_changes(
    environment: Environment, run: trees.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some is never checked against it."""
    before = installed.find(environment)
    synced = []
    monkeypatch.setattr(Tree, "sync", lambda tree, paths: synced.append((sorted(paths), installed.find(environment))))
    run("--no-tests", environment)
    paths, then = synced[0]
    assert paths == sorted(path for one in before for source in one.contents for path in trees.caches(source))
    assert [trees.bytecode(environment, one) for one in then] == [[], []]
    assert [one.contents for one in then] == [one.contents for one in before]


def test_what_cannot_be_put_back_is_said(
    environment: Environment, run: trees.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine = trees.snapshot(environment.path)
    with monkeypatch.context() as patched:
        write, written = Tree.write, []

        def failing(self: Tree, path: Any, *arguments: Any) -> Any:
            if path in written:
                trees.fail()
            written.append(path)
            return write(self, path, *arguments)

        patched.setattr(Tree, "write", failing)
        trees.before(patched, "rename", 3, trees.fail)
        assert "could not be undone" in run("--no-tests", environment, status=3).err
    run("--revert", environment)
    assert trees.snapshot(environment.path) == pristine


def test_told_to_end_while_changing(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trees.snapshot(environment.path)
    with monkeypatch.context() as patched:
        patched.setattr(change, "leftovers", lambda tree, installed: sys.exit(143))
        with pytest.raises(SystemExit):
            apply.main(["--no-tests", str(environment.path)])
    assert trees.snapshot(environment.path) == before


@pytest.mark.measured
def test_another_waits_and_says_so(environment: Environment, run: trees.Run) -> None:
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


def test_many(environment: Environment, run: trees.Run) -> None:
    """Applies and reverts, all at once: each succeeds, and the last one's result is whole."""
    pristine = trees.snapshot(environment.path)
    options = ("--no-tests", "--revert") * 6
    runs = [trees.start(*trees.MODULE, option, environment.path) for option in options]
    assert [(one.communicate()[0], one.returncode)[1] for one in runs] == [0] * 12
    one = trees.only(environment)
    assert one.state in (State.PRISTINE, State.PATCHED) and one.finished
    assert trees.disagreements(environment) == [] and trees.stale(environment) == []
    run("--revert", environment)
    assert trees.snapshot(environment.path) == pristine, "no lock file is left"
