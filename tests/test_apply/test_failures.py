"""What is said, and what is undone, when something fails that seldom does."""

import errno
import fcntl
import os
import resource
import sys
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from usr1.apply import apply, change, installed
from usr1.apply.environment import Environment
from usr1.apply.files import Tree

from test_apply import trees


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files may not grow beyond 100 bytes: a real error of write(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check_refused(environment: Environment, capsys: pytest.CaptureFixture[str]) -> str:
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    assert trees.snapshot(environment.path) == before
    return capsys.readouterr().err


def test_no_room(environment: Environment, full_disk: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing was changed" in check_refused(environment, capsys)


def fail(monkeypatch: pytest.MonkeyPatch, names: List[str], number: int) -> None:
    """Have the renames over files of these names fail."""
    rename = Tree.rename

    def failing(self: Tree, new: Path, path: Path) -> None:
        if path.name in names:
            raise OSError(number, os.strerror(number), str(path))
        rename(self, new, path)

    monkeypatch.setattr(Tree, "rename", failing)


@pytest.mark.parametrize("name", ["RECORD", "workers.py"])
def test_what_was_replaced_is_put_back(
    name: str, environment: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RECORD comes first, then the source."""
    fail(monkeypatch, [name], errno.EPERM)
    assert "lsattr" in check_refused(environment, capsys)


def test_without_proc(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As test_another_system of test_cli, which needs to be root, or user namespaces."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self/status" and exists(path))
    assert apply.main([str(environment.path)]) == 2
    trees.check_four_lines(capsys.readouterr().err, "cannot be tested on this system")
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert "not needed, as no running server uses the old code" in capsys.readouterr().out


def test_bytecode_has_left_the_disk_before_the_source_changes(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some is never checked against it."""
    before = installed.find(environment)
    synced = []
    monkeypatch.setattr(Tree, "sync", lambda tree, paths: synced.append((sorted(paths), installed.find(environment))))
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    paths, then = synced[0]
    assert paths == sorted(path for one in before for source in one.contents for path in trees.caches(source))
    assert [trees.bytecode(environment, one) for one in then] == [[], []] and [one.contents for one in then] == [
        one.contents for one in before
    ]


def test_what_cannot_be_put_back_is_said(
    environment: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine = trees.snapshot(environment.path)
    with monkeypatch.context() as patched:
        write, written = Tree.write, []

        def failing(self: Tree, path: Path, *arguments: Any) -> Any:
            if path in written:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            written.append(path)
            return write(self, path, *arguments)

        patched.setattr(Tree, "write", failing)
        fail(patched, ["workers.py"], errno.EIO)
        assert apply.main(["--no-tests", str(environment.path)]) == 3
    assert "could not be undone" in capsys.readouterr().err
    assert apply.main(["--revert", str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == pristine


def test_told_to_end_while_changing(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trees.snapshot(environment.path)
    with monkeypatch.context() as patched:
        patched.setattr(change, "leftovers", lambda tree, installed: sys.exit(143))
        with pytest.raises(SystemExit):
            apply.main(["--no-tests", str(environment.path)])
    after = trees.snapshot(environment.path)
    assert after == before


def test_what_was_not_written_is_noticed(
    environment: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 7))
    assert "what was read back is not what was written" in check_refused(environment, capsys)


def test_a_file_system_without_locks(
    environment: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert "No locks available" in check_refused(environment, capsys)


def test_waiting(environment: Environment) -> None:
    other = os.open(environment.site_packages, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    said: List[str] = []

    def say(line: str) -> None:
        said.append(line)
        os.close(other)

    with change.alone(environment, say):
        pass
    assert said == [f"waiting for another run on {environment.path} to end ..."]


def test_site_packages_that_are_no_directory(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    environment.site_packages.rename(environment.path / "elsewhere")
    environment.site_packages.write_text("")
    assert "Not a directory" in check_refused(environment, capsys)
    assert apply.main(["--check", str(environment.path)]) == 2
    assert "cannot look at" in capsys.readouterr().out


def test_the_way_to_install_is_pip_s_where_there_is_one(environment: Environment) -> None:
    assert environment.reinstall("uvicorn").startswith("uv pip install ")
    (environment.path / "bin" / "pip").write_text("")
    assert environment.reinstall("uvicorn") == f"{environment.path}/bin/pip install --force-reinstall --no-deps uvicorn"
    assert installed.version(environment, "none") is None
