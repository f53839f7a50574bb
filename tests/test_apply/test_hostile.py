"""
Environments of users who would have root write elsewhere, wait for ever, or undo what an installer did.

And as which user the tests run: root runs nothing that somebody else may have written.
"""

import errno
import multiprocessing
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import environments
import pytest
from pytest import MonkeyPatch
from test_forks import conftest as forks
from usr1.apply import apply, installed, user
from usr1.apply.environment import Environment
from usr1.apply.user import NOBODY, User
from usr1.refusal import Refusal

from test_apply import conftest as trees
from test_apply.conftest import Run, dist_info, workers
from test_apply.test_cli import suite

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can do this")

INFO = f"uvicorn-{trees.NEWEST}.dist-info"
#: As site-packages has them.
DIRECTORIES = ("uvicorn", "uvicorn/__pycache__", INFO, "gunicorn/__pycache__", ".", "..", "../..")
SOURCES = ("uvicorn/workers.py", f"{INFO}/METADATA", f"{INFO}/RECORD")
HARMLESS = (f"{INFO}/direct_url.json", "../../../pyvenv.cfg", "some.pth")


def at(environment: Environment, name: str) -> Path:
    return Path(os.path.normpath(environment.site_packages / name))


@pytest.mark.parametrize("name", [*DIRECTORIES, *SOURCES])
def test_a_link_out_of_the_environment(name: str, environment: Environment, tmp_path: Path, run: Run) -> None:
    """It is named; some caches of packages are like that."""
    path, elsewhere = at(environment, name), tmp_path / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    before = trees.snapshot(tmp_path, compiled=True)
    named = f"{path} is a link" if name.startswith(".") else f", a link to {elsewhere}"
    for option in ("--no-tests", "--revert", "--dry-run", "--tests-only", "--check"):
        status = 1 if option == "--check" and not name.startswith(".") else 2
        said = "".join(run(option, environment, status=status))
        assert "  expected: " in said and named in said
    assert trees.snapshot(tmp_path, compiled=True) == before


@pytest.mark.parametrize("name", DIRECTORIES)
@pytest.mark.parametrize("operation", ["read", "write", "rename", "remove", "sync"])
def test_a_link_that_comes_meanwhile(
    operation: str, name: str, environment: Environment, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    """At any operation on files a directory becomes a link: what it leads to stays as it is."""
    path, elsewhere = at(environment, name), tmp_path / "elsewhere"
    shutil.copytree(path, elsewhere)
    before = trees.snapshot(elsewhere, compiled=True)

    def swap() -> None:
        path.rename(tmp_path / "aside")
        path.symlink_to(elsewhere)

    trees.before(monkeypatch, operation, 1, swap)
    assert apply.main(["--no-tests", str(environment.path)]) in (0, 2, 3)
    assert path.is_symlink()
    assert trees.snapshot(elsewhere, compiled=True) == before


def keep_swapping(environment: Environment, outside: Path, ending: Event) -> None:
    """As nobody, have each directory, and each file that is read, be a link to root's own for an instant."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    # Those that are there: a path below a directory that was swapped is another one's
    paths = [path for path in (at(environment, name) for name in (*DIRECTORIES, *SOURCES, *HARMLESS)) if path.exists()]
    choose, aside = random.Random(0), environment.path / "aside"
    while not ending.is_set():
        path = choose.choice(paths)
        path.rename(aside)
        path.symlink_to(outside / path.relative_to(environment.path))
        time.sleep(choose.uniform(0, 0.002))
        path.unlink()
        aside.rename(path)
        time.sleep(choose.uniform(0, 0.02))


def everything(directory: Path) -> object:
    stats = {path: path.lstat() for path in [directory, *directory.rglob("*")]}
    return {path: (one.st_ino, one.st_mtime_ns, one.st_ctime_ns, one.st_uid) for path, one in stats.items()}


@pytest.mark.full
@root_only
def test_an_owner_who_keeps_swapping(place: Path, run: Run) -> None:
    """And kills every other run. Whatever comes of the environment, nothing outside is written to."""
    environment, outside = trees.light(place / "venv", trees.source()), place / "outside"
    shutil.copytree(environment.path, outside, symlinks=True)
    subprocess.run(["chown", "-R", str(NOBODY), environment.path], check=True)
    before, untouched = trees.snapshot(environment.path), everything(outside)
    start = time.monotonic()
    run("--no-tests", environment)
    takes = time.monotonic() - start
    fork, choose, ends = multiprocessing.get_context("fork"), random.Random(1), Counter[int]()
    ending = fork.Event()
    owner = fork.Process(target=keep_swapping, args=(environment, outside, ending))
    owner.start()
    try:
        for n in range(600):
            arguments = (("--revert", "--no-tests")[n // 2 % 2], str(environment.path))
            process = fork.Process(target=lambda *words: sys.exit(apply.main(words)), args=arguments)
            process.start()
            if n % 2:
                time.sleep(choose.uniform(0, takes / 2))
                process.kill()
            process.join()
            ends[process.exitcode or 0] += 1
            assert everything(outside) == untouched, f"by run {n}"
    finally:
        ending.set()
        owner.join()
    assert owner.exitcode == 0, "the owner could not go on"
    assert ends[0] and ends[-signal.SIGKILL] and set(ends) <= {0, 2, 3, -signal.SIGKILL}
    # And what the owner has left alone is whole, or made whole
    for option in ("--no-tests", "--revert"):
        run(option, environment)
    assert trees.snapshot(environment.path) == before


@pytest.mark.parametrize("kind", [stat.S_IFIFO, pytest.param(stat.S_IFCHR, marks=root_only)])
@pytest.mark.parametrize("name", [*SOURCES, *HARMLESS])
def test_what_would_never_end(name: str, kind: int, environment: Environment, run: Run) -> None:
    """Nor is uvicorn-worker, which is missing, looked for in a FIFO."""
    at(environment, name).unlink(missing_ok=True)
    os.mknod(at(environment, name), 0o600 | kind, os.makedev(1, 5))  # As /dev/zero, if it is a device
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    try:
        run("--no-tests", environment, status=0 if name in HARMLESS else 2)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@root_only
@pytest.mark.parametrize("attribute", ["a", "i"])
@pytest.mark.parametrize("name", ["uvicorn", "uvicorn/workers.py"])
def test_append_only(name: str, attribute: str, environment: Environment, run: Run) -> None:
    """What can be made there could not be renamed or removed."""
    before = trees.snapshot(environment.path, compiled=True)
    path = environment.site_packages / name
    subprocess.run(["chattr", f"+{attribute}", path], check=True)
    try:
        assert "lsattr(1)" in run.refused("nothing was changed", "--no-tests", environment)
    finally:
        subprocess.run(["chattr", f"-{attribute}", path], check=True)
    assert trees.snapshot(environment.path, compiled=True) == before


NONE = 0xFFFFFFFF
#: As acl(5) has it: of tag, permissions and user or group.
ACL = struct.pack("<I" + 5 * "HHI", 2, 1, 6, NONE, 2, 4, NOBODY, 4, 0, NONE, 0x10, 4, NONE, 0x20, 0, NONE)


def kept(path: Path) -> Tuple[Dict[str, bytes], Tuple[int, ...]]:
    """What a file is, but for its content and times."""
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    status = path.stat()
    return attributes, (status.st_mode, status.st_uid, status.st_gid)


@pytest.mark.root
def test_owner_mode_and_attributes_are_kept(environment: Environment, run: Run, monkeypatch: MonkeyPatch) -> None:
    """But not a signature, which is wrong of another content. Nor is an access control list of the directory added."""
    changed = [workers(environment), dist_info(environment) / "RECORD"]
    os.setxattr(changed[0], "system.posix_acl_access", ACL)
    for path in changed:
        os.setxattr(path.parent, "system.posix_acl_default", ACL)
        os.setxattr(path, "user.note", b"\0kept")
        path.chmod(0o640)
        if os.getuid() == 0:
            os.chown(path, 12345, 54321)
            os.setxattr(path, "security.selinux", b"system_u:object_r:lib_t:s0\0")
    before = [kept(path) for path in changed]
    assert before[0][0].keys() >= {"user.note", "system.posix_acl_access"}
    if os.getuid() == 0:
        os.setxattr(changed[0], "security.evm", b"\2signed")
    for option in ("--no-tests", "--revert"):
        run(option, environment)
        assert [kept(path) for path in changed] == before
    trees.before(monkeypatch, "rename", 3, trees.fail)  # RECORD is to be put back then
    run("--no-tests", environment, status=2)
    assert [kept(path) for path in changed] == before


@pytest.mark.parametrize("error, status", [(errno.ENOTSUP, 0), (errno.EIO, 2), (None, 0)])
def test_attributes_that_cannot_be_read(
    error: Optional[int], status: int, environment: Environment, run: Run, monkeypatch: MonkeyPatch
) -> None:
    """Where there are none that is so, and where the system knows none, as macOS; else they would be lost."""
    if error:
        monkeypatch.setattr(os, "listxattr", lambda descriptor: trees.fail(error))
    else:
        monkeypatch.delattr(os, "listxattr")
    run("--no-tests", environment, status=status)


OTHER = "Version: 0.55.0\n"


def upgrade(environment: Environment) -> None:
    """As an installer does: other files in the place of those, another dist-info."""
    for path in (workers(environment), dist_info(environment) / "METADATA"):
        path.unlink()
        path.write_text(OTHER)
    dist_info(environment).rename(environment.site_packages / "uvicorn-0.55.0.dist-info")


def upgrade_and_fail(environment: Environment) -> None:
    upgrade(environment)
    trees.fail()


Act = Callable[[Environment], object]
#: When an installer does what, and what becomes of it: what it has put there stays, and of what this did nothing.
MEANWHILE: List[Tuple[str, int, Act]] = [
    ("write", 1, upgrade),
    ("write", 3, upgrade),
    ("_stage", 1, lambda environment: workers(environment).write_text(OTHER)),
    ("rename", 1, upgrade),
    ("rename", 2, upgrade),
    ("rename", 3, trees.uninstall),
    ("sync", 2, upgrade_and_fail),
]


@pytest.mark.parametrize("operation, number, act", MEANWHILE)
def test_an_installer_at_the_same_time(
    operation: str, number: int, act: Act, environment: Environment, monkeypatch: MonkeyPatch, run: Run
) -> None:
    before = trees.snapshot(environment.path)
    trees.before(monkeypatch, operation, number, lambda: act(environment))
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    why = "cannot change" if act is upgrade_and_fail else "another program works on"
    assert f"{why} {environment.path}" in forks.said(run.capsys.readouterr().err)[0]
    now, file = trees.snapshot(environment.path), workers(environment)
    assert not file.exists() if act is trees.uninstall else file.read_text() == OTHER
    others = [{name: entry for name, entry in tree.items() if "/uvicorn" not in name} for tree in (before, now)]
    assert others[0] == others[1]
    assert not [name for name in now if name.endswith(installed.UNFINISHED)]


@pytest.mark.parametrize("number", [3, 4])
def test_an_installer_at_the_last_instant(
    number: int, environment: Environment, monkeypatch: MonkeyPatch, run: Run
) -> None:
    """Between the last look and a rename, or after it: that is not taken for success."""
    calls = trees.before(monkeypatch, "rename", number, lambda: upgrade(environment))
    assert "install the release that you want again" in run("--no-tests", environment, status=3).err
    renamed = [str(path) for _, _, path in calls]
    assert not [path for path in renamed[2:] if "RECORD" in path] and len(calls) >= number


TESTS_ONLY = ("--tests-only", "--no-figures")

#: A property that imports what is to be found, and leaves a note of whose directory it is run in.
IMPORTS = """
import os, subprocess

def test_it(pytestconfig):
    python = pytestconfig.getoption("--environment") + "/bin/python"
    for module in ("gunicorn", "sitecustomize", "added"):
        subprocess.call([python, "-B", "-c", f"import {module}"])
    here = os.getcwd()
    assert os.stat(here).st_uid == os.getuid()
    assert os.environ["HOME"] == os.environ["TMPDIR"] == here
"""


#: Leaves a file that is named by who runs it.
TELLS = "import os\nopen({!r} + f'/{{os.getuid()}}', 'w')\n"


@pytest.fixture
def told(place: Path, root: Path) -> Path:
    """Where that is."""
    suite(root, IMPORTS)
    (place / "told").mkdir()
    (place / "told").chmod(0o777)
    return place / "told"


def a_pth(environment: Environment, told: Path) -> None:
    theirs = environment.path.parent / "theirs"
    theirs.mkdir()
    (theirs / "added.py").write_text(TELLS.format(str(told)))
    os.chown(theirs, NOBODY, NOBODY)
    (environment.site_packages / "some.pth").write_text(f"# to a project\n{theirs}\n")


@root_only
def test_root_runs_no_code_of_others(environment: Environment, told: Path, run: Run) -> None:
    """Here neither nobody nor its owner can reach the environment."""
    (environment.site_packages / "added.py").write_text(TELLS.format(str(told)))
    environment.site_packages.chmod(0o1777)  # Anybody may add to it
    said = run.refused(f"{environment.path} cannot be tested as user nobody", environment)
    assert "as root" not in said.splitlines()[-1]
    os.chown(environment.path, 12345, 12345)
    start = f"{environment.path} cannot be tested as user 12345, and is not for root to run"
    said = run.refused(start, *TESTS_ONLY, environment)
    assert "belongs to user 12345" in said and "run this as user 12345" in said
    run("--no-tests", environment)
    assert os.listdir(told) == []


@root_only
def test_root_runs_what_is_root_s_alone(environment: Environment, told: Path, run: Run) -> None:
    """Where nobody cannot: the same once it belongs to root."""
    a_pth(environment, told)
    subprocess.run(["chown", "-R", "root:root", environment.path.parent], check=True)
    subprocess.run(["chmod", "-R", "go-w", environment.path.parent], check=True)
    said = run(*TESTS_ONLY, environment).out
    assert "  tested as root, who alone may write to what is run; as user nobody: " in said
    assert os.listdir(told) == ["0"]


@root_only
@pytest.mark.parametrize("owner", [0, NOBODY, 12345])
def test_the_owner_runs_it(owner: int, place: Path, told: Path, run: Run) -> None:
    """With the code of others; nobody in the place of root. What is patched stays the owner's."""
    if not environments.is_open(Path(sys.executable)):
        pytest.skip(f"user nobody cannot run {sys.executable}")
    environment = trees.light(place / "venv", trees.source(), python=Path(sys.executable))
    (environment.site_packages / "gunicorn" / "__init__.py").write_text(TELLS.format(str(told)))
    a_pth(environment, told)
    subprocess.run(["chown", "-R", f"{owner}:{owner}", environment.path], check=True)
    said = run("--no-figures", environment).out
    assert f"  tested as user {owner if owner == 12345 else 'nobody'}\n" in said  # The system knows no 12345
    assert os.listdir(told) == [str(owner or NOBODY)]
    assert {path.lstat().st_uid for path in environment.path.rglob("*")} == {owner}


def test_what_may_be_run(environment: Environment, tmp_path: Path) -> None:
    """And what leads there; true where it is enough to add a file to a directory."""
    for name in ("named", "linked", "lacking", "elsewhere", "base/bin", "base/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "linked" / "module.py").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "base" / "lib" / "libpython3.so").touch()
    environment.python.rename(tmp_path / "elsewhere" / "python")
    environment.python.symlink_to(tmp_path / "elsewhere" / "python")
    site_packages = environment.site_packages
    (site_packages / "package").symlink_to("../../../../linked")
    (site_packages / "some.pth").symlink_to(tmp_path / "pth")
    (tmp_path / "pth").write_text(f"import os\n{tmp_path}/named\n{tmp_path}/lacking/one/two\n{tmp_path}/loop\n")
    (environment.path / "pyvenv.cfg").write_text(f"home = {tmp_path}/base/bin\n")
    (environment.path / ".lock").touch()
    code = set(user.code(environment))
    found = {path: (path, True) in code for path, _ in code}
    assert {os.path.realpath(environment.python), str(site_packages / "gunicorn" / "util.py")} < set(found)
    assert str(environment.path / ".lock") not in found
    expected = {
        "/": False,
        str(tmp_path): False,
        str(environment.path / "bin"): True,
        str(environment.path / "lib"): True,
        str(environment.python): False,
        f"{tmp_path}/elsewhere": False,
        str(site_packages): True,
        str(site_packages / "package"): False,
        f"{tmp_path}/linked": True,
        f"{tmp_path}/linked/module.py": True,
        f"{tmp_path}/named": True,
        f"{tmp_path}/loop": False,
        f"{tmp_path}/base/lib/libpython3.so": False,
        f"{tmp_path}/base/lib": True,  # Where it has no standard library
        f"{tmp_path}/lacking": True,  # Where one is missing that a .pth file names
    }
    assert {path: found.get(path) for path in expected} == expected


@pytest.mark.parametrize(
    "path, adding, strange",
    [
        ("/", True, ""),
        ("/tmp", False, ""),
        ("/tmp", True, "others may write to /tmp (mode 1777)"),
        ("/dev/null", False, "others may write to /dev/null (mode 666)"),
        ("/proc/self/exe", False, "" if os.getuid() == 0 else f"/proc/self/exe belongs to user {os.getuid()}"),
        ("/nowhere", False, ""),
    ],
)
def test_whose_a_file_is(path: str, adding: bool, strange: str) -> None:
    assert user._strange(path, adding) == strange


def test_who_is_become(monkeypatch: MonkeyPatch) -> None:
    """The groups first: afterwards it may not."""
    called: List[str] = []
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda value, name=name: called.append(f"{name} {value}"))
    User("some", 1, 2, [2, 3]).become()
    assert called == ["setgroups [2, 3]", "setgid 2", "setuid 1"]


@pytest.fixture
def as_root(monkeypatch: MonkeyPatch) -> None:
    """As if it were, and could become another user."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(User, "become", lambda self: None)


@pytest.mark.parametrize("refused", ["root cannot become that user here", "Permission denied"])
def test_root_that_can_become_nobody_else(
    refused: str, as_root: None, environment: Environment, monkeypatch: MonkeyPatch, run: Run
) -> None:
    """As in a container without CAP_SETUID; or it cannot run the tools."""
    if refused == "Permission denied":
        monkeypatch.setattr(sys, "executable", str(environment.path / "pyvenv.cfg"))
    else:
        monkeypatch.setattr(User, "become", lambda self: trees.fail())
    monkeypatch.setattr(user, "_strange", lambda path, adding: "")
    assert user.choose(environment, []) is None
    said = run.capsys.readouterr().out
    assert refused in said and "  tested as root, who alone may write to what is run; as user " in said


def test_what_a_user_needs(as_root: None, environment: Environment, monkeypatch: MonkeyPatch, run: Run) -> None:
    chosen = user.choose(environment, [])
    assert chosen and chosen.number == (os.getuid() or NOBODY)
    assert run.capsys.readouterr().out == f"  tested as user {chosen.name}\n"
    monkeypatch.setattr(user, "_strange", lambda path, adding: f"{path} belongs to user 7")
    with pytest.raises(Refusal, match=f"as user {chosen.name}: cannot read /nowhere; / belongs to user 7"):
        user.choose(environment, [Path("/nowhere")])


def test_its_directory(as_root: None, environment: Environment, root: Path, run: Run) -> None:
    """What the tests leave goes with it."""
    suite(root, "import os\n\ndef test_it():\n    print(os.getcwd())\n    open('left', 'w')\n")
    said = run(*TESTS_ONLY, environment).out
    [work] = [line for line in said.splitlines() if line.startswith("/") and "usr1-" in line]
    assert not Path(work).exists()
