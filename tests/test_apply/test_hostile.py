"""Environments of users who would have root write elsewhere, wait for ever, or undo what an installer did."""

import errno
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Callable, Dict

import pytest
from usr1.apply import apply, installed
from usr1.apply.environment import Environment

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
    "python3": lambda environment: environment.site_packages.parent,
    "lib": lambda environment: environment.path / "lib",
}
FILES: Dict[str, Place] = {
    "METADATA": lambda environment: dist_info(environment) / "METADATA",
    "RECORD": lambda environment: dist_info(environment) / "RECORD",
    "direct_url.json": lambda environment: dist_info(environment) / "direct_url.json",
    "workers.py": lambda environment: environment.site_packages / "uvicorn" / "workers.py",
    "pyvenv.cfg": lambda environment: environment.path / "pyvenv.cfg",
    "a .pth": lambda environment: environment.site_packages / "some.pth",
}
LINKS = {**DIRECTORIES, **{name: FILES[name] for name in ("METADATA", "RECORD", "workers.py")}}


@pytest.mark.parametrize("place", LINKS.values(), ids=LINKS)
def test_a_link_out_of_the_environment(
    place: Place, environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named; some caches of packages are like that."""
    path, elsewhere = place(environment), tmp_path / "elsewhere"
    is_named = path in environment.site_packages.parents or path == environment.site_packages
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    before = trees.snapshot(tmp_path), sorted(tmp_path.rglob("*.pyc"))
    for option in ("--no-tests", "--revert", "--dry-run", "--tests-only", "--check"):
        assert apply.main([option, str(environment.path)]) == (1 if option == "--check" and not is_named else 2)
        said = "".join(capsys.readouterr())
        assert "  expected: " in said and (f"{path} is a link" if is_named else f", a link to {elsewhere}") in said
    assert (trees.snapshot(tmp_path), sorted(tmp_path.rglob("*.pyc"))) == before


@pytest.mark.parametrize("place", DIRECTORIES.values(), ids=DIRECTORIES)
@pytest.mark.parametrize("operation", ["read", "write", "rename", "remove", "sync"])
def test_a_link_that_comes_meanwhile(
    operation: str, place: Place, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any operation on files a directory becomes a link: what it leads to stays as it is."""
    path, elsewhere = place(environment), tmp_path / "elsewhere"
    shutil.copytree(path, elsewhere)
    before = trees.snapshot(elsewhere), sorted(elsewhere.rglob("*.pyc"))

    def swap() -> None:
        path.rename(tmp_path / "aside")
        path.symlink_to(elsewhere)

    assert not path.is_symlink()
    trees.before(monkeypatch, operation, 1, swap)
    assert apply.main(["--no-tests", str(environment.path)]) in (0, 2, 3)
    assert path.is_symlink()
    assert (trees.snapshot(elsewhere), sorted(elsewhere.rglob("*.pyc"))) == before


def device(path: Path) -> None:
    """As /dev/zero, which never ends."""
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


@pytest.mark.parametrize("make", [os.mkfifo, device])
@pytest.mark.parametrize("place", FILES.values(), ids=FILES)
@pytest.mark.parametrize("option", ["--check", "--no-tests"])
def test_what_would_never_end(
    option: str, place: Place, make: Callable[[Path], None], environment: Environment
) -> None:
    if os.getuid() != 0 and make is device:
        pytest.skip("only root can make devices")
    place(environment).unlink(missing_ok=True)
    make(place(environment))
    shutil.rmtree(environment.site_packages / "gunicorn")  # Nor is what is missing looked for in a FIFO
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    try:
        status = apply.main([option, "--only", "uvicorn", str(environment.path)])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    harmless = place(environment).suffix in (".json", ".pth", ".cfg")
    assert status == (1 if option == "--check" else 0 if harmless else 2)


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


def acl(*entries: "tuple[int, int, int]") -> bytes:
    """As acl(5) has it, of tag, permissions and user or group."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NONE = 0xFFFFFFFF
ACL = acl((0x01, 6, NONE), (0x02, 4, 65534), (0x04, 0, NONE), (0x10, 4, NONE), (0x20, 0, NONE))


def attributes(path: Path) -> Dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.mark.root
def test_extended_attributes_and_access_control_lists_stay(environment: Environment) -> None:
    """But not the signature of a content: of another one it is wrong."""
    changed = [environment.site_packages / "uvicorn" / "workers.py", dist_info(environment) / "RECORD"]
    for path in changed:
        os.setxattr(path, "user.note", b"\0kept")
        os.setxattr(path, "system.posix_acl_access", ACL)
        if os.getuid() == 0:
            os.setxattr(path, "security.selinux", b"system_u:object_r:lib_t:s0\0")
    before = [(attributes(path), path.stat().st_mode) for path in changed]
    assert before[0][0].keys() >= {"user.note", "system.posix_acl_access"}
    if os.getuid() == 0:
        os.setxattr(changed[0], "security.evm", b"\2signed")
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
    with monkeypatch.context() as patched:
        patched.setattr(os, "listxattr", lambda descriptor: trees.fail(error))
        assert apply.main(["--no-tests", str(environment.path)]) == status
    assert (trees.snapshot(environment.path) == before) == (status != 0)


def test_a_system_that_knows_no_attributes(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS."""
    monkeypatch.delattr(os, "listxattr")
    assert apply.main(["--no-tests", str(environment.path)]) == 0


def test_attributes_are_put_back_too(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    record = dist_info(environment) / "RECORD"
    os.setxattr(record, "user.note", b"kept")
    trees.before(monkeypatch, "rename", 3, trees.fail)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    assert attributes(record) == {"user.note": b"kept"}


def upgrade(environment: Environment) -> None:
    """As an installer does: other files in the place of those, another dist-info."""
    for path in (environment.site_packages / "uvicorn" / "workers.py", dist_info(environment) / "METADATA"):
        path.unlink()
        path.write_text("Version: 0.55.0\n")
    dist_info(environment).rename(environment.site_packages / "uvicorn-0.55.0.dist-info")


def half_an_upgrade(environment: Environment) -> None:
    (environment.site_packages / "uvicorn" / "workers.py").write_text("Version: 0.55.0\n")


def upgrade_and_fail(environment: Environment) -> None:
    upgrade(environment)
    trees.fail()


def uninstall(environment: Environment) -> None:
    shutil.rmtree(environment.site_packages / "uvicorn")
    shutil.rmtree(dist_info(environment))


#: When an installer does what, and what becomes of it: what it has put there stays, and of what this did nothing.
MEANWHILE = [
    ("write", 1, upgrade, "another program works on"),
    ("write", 3, upgrade, "another program works on"),
    ("_stage", 1, half_an_upgrade, "another program works on"),
    ("rename", 1, upgrade, "another program works on"),
    ("rename", 2, upgrade, "another program works on"),
    ("rename", 3, uninstall, "another program works on"),
    ("sync", 2, upgrade_and_fail, "cannot change"),
]


@pytest.mark.parametrize("operation, number, act, said", MEANWHILE)
def test_an_installer_at_the_same_time(
    operation: str,
    number: int,
    act: Callable[[Environment], None],
    said: str,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = trees.snapshot(environment.path)
    with monkeypatch.context() as patched:
        trees.before(patched, operation, number, lambda: act(environment))
        assert apply.main(["--no-tests", str(environment.path)]) == 2
    trees.check_four_lines(capsys.readouterr().err, f"{said} {environment.path}")
    now = trees.snapshot(environment.path)
    file = environment.site_packages / "uvicorn" / "workers.py"
    assert (file.read_text() if file.exists() else uninstall) == (
        uninstall if act is uninstall else "Version: 0.55.0\n"
    )
    unaffected = {name: entry for name, entry in now.items() if "/uvicorn" not in name}
    assert unaffected == {name: entry for name, entry in before.items() if "/uvicorn" not in name}
    assert not [name for name in now if name.endswith(installed.UNFINISHED)]


@pytest.mark.parametrize("number", [3, 4])
def test_an_installer_at_the_last_instant(
    number: int, environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the last look and a rename, or after it: that is not taken for success."""
    calls = trees.before(monkeypatch, "rename", number, lambda: upgrade(environment))
    assert apply.main(["--no-tests", str(environment.path)]) == 3
    renamed = [str(path) for _, _, path in calls]
    assert not [path for path in renamed[2:] if "RECORD" in path] and len(calls) >= number
    assert "install the release that you want again" in capsys.readouterr().err
