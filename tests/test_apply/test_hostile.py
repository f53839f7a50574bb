"""Environments of users who would have root write elsewhere, wait for ever, or undo what an installer did."""

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from usr1.apply import apply, change, files, installed
from usr1.apply.environment import Environment
from usr1.apply.files import Tree

from test_apply import trees


def dist_info(environment: Environment) -> Path:
    [path] = environment.site_packages.glob("uvicorn-*.dist-info")
    return path


Place = Callable[[Environment], Path]
DIRECTORIES: Dict[str, Place] = {
    "the package": lambda environment: environment.site_packages / "uvicorn",
    "its bytecode": lambda environment: environment.site_packages / "uvicorn" / "__pycache__",
    "its dist-info": dist_info,
    "a package within": lambda environment: environment.site_packages / "gunicorn" / "__pycache__",
    "site-packages": lambda environment: environment.site_packages,
    "lib": lambda environment: environment.path / "lib",
}
places = pytest.mark.parametrize("place", DIRECTORIES.values(), ids=DIRECTORIES)


def move_out(path: Path, elsewhere: Path) -> None:
    """A link is left, to where everything is as before."""
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


@places
def test_a_link_out_of_the_environment(
    place: Place, environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    move_out(place(environment), tmp_path / "elsewhere")
    before = [trees.snapshot(path) for path in (environment.path, tmp_path / "elsewhere")]
    bytecode = sorted((tmp_path / "elsewhere").rglob("*.pyc"))
    for option in ("--no-tests", "--revert"):
        assert apply.main([option, str(environment.path)]) == 2
        said = capsys.readouterr().err
        assert "expected: " in said and "Traceback" not in said
    assert [trees.snapshot(path) for path in (environment.path, tmp_path / "elsewhere")] == before
    assert sorted((tmp_path / "elsewhere").rglob("*.pyc")) == bytecode


@places
@pytest.mark.parametrize("operation", ["read", "write", "rename", "remove", "sync"])
def test_a_link_that_comes_meanwhile(
    operation: str, place: Place, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any operation on files a directory becomes a link: what it leads to stays as it is."""
    path = place(environment)
    shutil.copytree(path, tmp_path / "elsewhere")
    before = trees.snapshot(tmp_path / "elsewhere")
    bytecode = sorted((tmp_path / "elsewhere").rglob("*.pyc"))
    original = getattr(Tree, operation)
    swapped: List[Path] = []

    def swapping(self: Tree, *arguments: object) -> object:
        if not swapped:
            swapped.append(path.rename(tmp_path / "aside"))
            path.symlink_to(tmp_path / "elsewhere")
        return original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Tree, operation, swapping)
        assert apply.main(["--no-tests", str(environment.path)]) in (0, 2, 3)
    assert swapped
    assert trees.snapshot(tmp_path / "elsewhere") == before
    assert sorted((tmp_path / "elsewhere").rglob("*.pyc")) == bytecode


FILES: Dict[str, Place] = {
    "METADATA": lambda environment: dist_info(environment) / "METADATA",
    "RECORD": lambda environment: dist_info(environment) / "RECORD",
    "direct_url.json": lambda environment: dist_info(environment) / "direct_url.json",
    "workers.py": lambda environment: environment.site_packages / "uvicorn" / "workers.py",
    "pyvenv.cfg": lambda environment: environment.path / "pyvenv.cfg",
    "a .pth": lambda environment: environment.site_packages / "some.pth",
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    """As /dev/zero, which never ends."""
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


@pytest.mark.parametrize("make", [fifo, device])
@pytest.mark.parametrize("place", FILES.values(), ids=FILES)
@pytest.mark.parametrize("option", ["--check", "--no-tests"])
def test_what_would_never_end(
    option: str, place: Place, make: Callable[[Path], None], environment: Environment, tmp_path: Path
) -> None:
    if os.getuid() != 0 and make is device:
        pytest.skip("only root can make devices")
    place(environment).unlink(missing_ok=True)
    make(place(environment))
    shutil.rmtree(environment.site_packages / "gunicorn")  # Nor is what is missing looked for in a FIFO
    status = subprocess.run(
        ["timeout", "20", Path(apply.__file__).parents[2] / "apply.sh", option, "--only", "uvicorn", environment.path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode
    harmless = place(environment).suffix in (".json", ".pth", ".cfg")
    assert status == ((1 if option == "--check" else 0) if harmless else 1 if option == "--check" else 2)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a directory append-only")
@pytest.mark.parametrize("attribute", ["a", "i"])
@pytest.mark.parametrize("name", ["uvicorn", "uvicorn/workers.py"])
def test_append_only(name: str, attribute: str, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be made there could not be renamed or removed."""
    before = trees.snapshot(environment.path)
    bytecode = sorted(environment.path.rglob("*.pyc"))
    path = environment.site_packages / name
    subprocess.run(["chattr", f"+{attribute}", path], check=True)
    try:
        assert apply.main(["--no-tests", str(environment.path)]) == 2
    finally:
        subprocess.run(["chattr", f"-{attribute}", path], check=True)
    said = capsys.readouterr().err
    assert "nothing was changed" in said and "lsattr(1)" in said
    assert trees.snapshot(environment.path) == before
    assert sorted(environment.path.rglob("*.pyc")) == bytecode


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with Tree(tmp_path) as tree, pytest.raises(OSError, match="expected a regular file"):
        tree.read(tmp_path / "fifo")


def acl(*entries: "tuple[int, int, int]") -> bytes:
    """As acl(5) has it, of tag, permissions and user or group."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NONE = 0xFFFFFFFF
ACL = acl((0x01, 6, NONE), (0x02, 4, 65534), (0x04, 0, NONE), (0x10, 4, NONE), (0x20, 0, NONE))


def attributes(path: Path) -> Dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.mark.root
def test_extended_attributes_and_access_control_lists_stay(environment: Environment) -> None:
    changed = [environment.site_packages / "uvicorn" / "workers.py", dist_info(environment) / "RECORD"]
    for path in changed:
        os.setxattr(path, "user.note", b"\0kept")
        os.setxattr(path, "system.posix_acl_access", ACL)
        if os.getuid() == 0:
            os.setxattr(path, "security.selinux", b"system_u:object_r:lib_t:s0\0")
    before = [(attributes(path), path.stat().st_mode) for path in changed]
    assert before[0][0].keys() >= {"user.note", "system.posix_acl_access"}
    for option in ("--no-tests", "--revert"):
        assert apply.main([option, str(environment.path)]) == 0
        assert [(attributes(path), path.stat().st_mode) for path in changed] == before


@pytest.mark.parametrize("has_it", [True, False])
def test_a_directory_s_default_access_control_list_changes_nothing(has_it: bool, environment: Environment) -> None:
    os.setxattr(environment.site_packages / "uvicorn", "system.posix_acl_default", ACL)
    file = environment.site_packages / "uvicorn" / "workers.py"
    if has_it:
        os.setxattr(file, "system.posix_acl_access", ACL)
    before = attributes(file), file.stat().st_mode
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert (attributes(file), file.stat().st_mode) == before


@pytest.mark.parametrize("error, status", [(errno.ENOTSUP, 0), (errno.EIO, 2)])
def test_attributes_that_cannot_be_read(
    error: int, status: int, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are none that is so; where they would be lost nothing is changed."""
    before = trees.snapshot(environment.path)

    def failing(descriptor: int) -> List[str]:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(os, "listxattr", failing)
        assert apply.main(["--no-tests", str(environment.path)]) == status
    assert (trees.snapshot(environment.path) == before) == (status != 0)


def test_a_system_that_knows_no_attributes(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS."""
    with monkeypatch.context() as patched:
        patched.delattr(os, "listxattr")
        assert apply.main(["--no-tests", str(environment.path)]) == 0


def test_attributes_are_put_back_too(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    record = dist_info(environment) / "RECORD"
    os.setxattr(record, "user.note", b"kept")
    rename = Tree.rename

    def failing(self: Tree, new: Path, path: Path) -> None:
        if path.name == "workers.py":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(self, new, path)

    monkeypatch.setattr(Tree, "rename", failing)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    assert attributes(record) == {"user.note": b"kept"}


def upgrade(environment: Environment) -> None:
    """As an installer does: other files in the place of those, another dist-info."""
    for path in (environment.site_packages / "uvicorn" / "workers.py", dist_info(environment) / "METADATA"):
        path.unlink()
        path.write_text("Version: 0.55.0\n")
    dist_info(environment).rename(environment.site_packages / "uvicorn-0.55.0.dist-info")


@pytest.mark.parametrize("operation, number", [("write", 1), ("write", 3), ("rename", 1), ("rename", 2)])
def test_an_installer_at_the_same_time(
    operation: str,
    number: int,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it has put there stays, and of what this did nothing."""
    before = trees.snapshot(environment.path)
    original, calls = getattr(Tree, operation), []

    def interrupted(self: Tree, *arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == number:
            upgrade(environment)
        return original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Tree, operation, interrupted)
        status = apply.main(["--no-tests", str(environment.path)])
    assert len(calls) >= number
    said = capsys.readouterr().err
    now = trees.snapshot(environment.path)
    assert (environment.site_packages / "uvicorn" / "workers.py").read_text() == "Version: 0.55.0\n"
    assert status == 2
    trees.check_four_lines(said, f"another program works on {environment.path}")
    unaffected = {name: entry for name, entry in now.items() if "/uvicorn" not in name}
    assert unaffected == {name: entry for name, entry in before.items() if "/uvicorn" not in name}
    assert not [name for name in now if name.endswith(installed.UNFINISHED)]


@pytest.mark.parametrize("number", [3, 4])
def test_an_installer_at_the_last_instant(
    number: int, environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the last look and a rename, or after it: that is not taken for success."""
    original, calls = Tree.rename, []

    def interrupted(self: Tree, new: Path, path: Path) -> None:
        calls.append(path.name)
        if len(calls) == number:
            upgrade(environment)
        original(self, new, path)

    monkeypatch.setattr(Tree, "rename", interrupted)
    assert apply.main(["--no-tests", str(environment.path)]) == 3
    assert "RECORD" not in calls[2:] and len(calls) >= number
    assert "install the release that you want again" in capsys.readouterr().err


def test_an_installer_just_before_the_change(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That has replaced one file so far."""
    file = environment.site_packages / "uvicorn" / "workers.py"
    stage = change._stage

    def staged(*arguments: Any) -> None:
        file.write_text("# As in 0.55.0\n")
        stage(*arguments)

    monkeypatch.setattr(change, "_stage", staged)
    assert apply.main(["--no-tests", "--only", "uvicorn", str(environment.path)]) == 2
    trees.check_four_lines(capsys.readouterr().err, f"another program works on {environment.path}")
    assert file.read_text() == "# As in 0.55.0\n"


def test_what_another_has_put_there_is_not_undone(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was renamed over, and before the rest failed."""
    file = environment.site_packages / "uvicorn" / "workers.py"
    sync, calls = Tree.sync, []

    def interrupted(self: Tree, paths: object) -> None:
        calls.append(paths)
        if len(calls) == 2:
            upgrade(environment)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(self, paths)  # type: ignore[arg-type]

    monkeypatch.setattr(Tree, "sync", interrupted)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    assert file.read_text() == "Version: 0.55.0\n"


def test_a_file_that_is_gone_is_not_undone(environment: Environment) -> None:
    with Tree(environment.path) as tree:
        gone = environment.site_packages / "uvicorn" / "workers.py"
        before = tree.read(gone)
        gone.unlink()
        change._undo(tree, [change.Staged(gone, before, gone, before.status)])
    assert not gone.exists()


def test_signatures_of_a_content_are_not_kept() -> None:
    assert {"security.ima", "security.evm"} == files.SIGNATURES
