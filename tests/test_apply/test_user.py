"""As which user the tests run: root runs nothing that somebody else may have written."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from pytest import MonkeyPatch
from usr1.apply import user
from usr1.apply.environment import Environment
from usr1.apply.user import NOBODY, User
from usr1.refusal import Refusal

from test_apply import trees
from test_apply.test_cli import suite
from test_apply.trees import Run, root_only

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


class Told:
    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()
        file.chmod(0o666)
        self.code = f"import os\nwith open({str(file)!r}, 'a') as told:\n    print(os.getuid(), file=told)\n"

    @property
    def users(self) -> List[int]:
        return sorted(set(map(int, self.file.read_text().split())))


@pytest.fixture
def told(place: Path, root: Path) -> Told:
    suite(root, IMPORTS)
    return Told(place / "told")


@pytest.fixture
def open_environment(place: Path) -> Environment:
    """One that nobody can use, of a Python that nobody can use; nor may the tools be closed."""
    python = Path(os.path.realpath(sys.executable))
    for path in (python, Path(sys.executable), Path(pytest.__file__)):
        if subprocess.call(["test", "-r", path], user=NOBODY, group=NOBODY, extra_groups=[]) != 0:
            pytest.skip(f"user nobody cannot read {path}")
    return trees.light(place / "venv", trees.source(), python=python)


def a_pth(added: Path, environment: Environment) -> None:
    theirs = environment.path.parent / "theirs"
    theirs.mkdir()
    added.rename(theirs / added.name)
    os.chown(theirs, NOBODY, NOBODY)
    (environment.site_packages / "some.pth").write_text(f"# to a project\n{theirs}\n")


def sitecustomize(added: Path, environment: Environment) -> None:
    os.chown(added.rename(added.with_name("sitecustomize.py")), NOBODY, NOBODY)


def a_directory_above_the_python(added: Path, environment: Environment) -> None:
    python, theirs = environment.path / "bin" / "python", environment.path.parent / "bin"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    python.rename(theirs / "python")
    python.symlink_to(theirs / "python")


Way = Callable[[Path, Environment], object]
#: Each has a module be nobody's, or lets nobody change or replace it
WAYS: Dict[str, Way] = {
    "a .pth": a_pth,
    "mode 0666": lambda added, environment: added.chmod(0o666),
    "sitecustomize": sitecustomize,
    "a directory above": lambda added, environment: environment.path.parent.chmod(0o777),
    "a directory in which anybody may add": lambda added, environment: environment.site_packages.chmod(0o1777),
    "a directory above the python": a_directory_above_the_python,
}


def open_up(environment: Environment, way: str, told: Told) -> None:
    added = environment.site_packages / "added.py"
    added.write_text(told.code)
    WAYS[way](added, environment)


@root_only
@pytest.mark.parametrize("way", WAYS)
def test_root_runs_no_code_of_others(way: str, environment: Environment, told: Told, run: Run) -> None:
    """Here nobody cannot reach the environment."""
    environment.path.parent.parent.chmod(0o700)  # Another test may have opened it
    open_up(environment, way, told)
    said = run.refused(f"{environment.path} cannot be tested as user nobody", environment)
    assert "as root" not in said.splitlines()[-1]
    run("--no-tests", environment)
    assert told.users == []


@root_only
def test_root_runs_what_is_root_s_alone(environment: Environment, told: Told, run: Run) -> None:
    """Where nobody cannot: the same once it belongs to root, and the file that uv makes for anybody to lock."""
    open_up(environment, "a .pth", told)
    subprocess.run(["chown", "-R", "root:root", environment.path.parent], check=True)
    subprocess.run(["chmod", "-R", "go-w", environment.path.parent], check=True)
    (environment.path / ".lock").touch()
    (environment.path / ".lock").chmod(0o777)
    said = run(*TESTS_ONLY, environment).out
    assert "  tested as root, who alone may write to what is run; as user nobody: " in said
    assert told.users == [0]


@root_only
@pytest.mark.parametrize("owner", [0, NOBODY, 12345])
def test_the_owner_runs_it(owner: int, open_environment: Environment, told: Told, run: Run) -> None:
    """With the code of others; nobody in the place of root. What is patched stays the owner's."""
    (open_environment.site_packages / "gunicorn" / "__init__.py").write_text(told.code)
    open_up(open_environment, "a .pth", told)
    subprocess.run(["chown", "-R", f"{owner}:{owner}", open_environment.path], check=True)
    said = run("--no-figures", open_environment).out
    assert f"  tested as user {owner if owner == 12345 else 'nobody'}\n" in said  # The system knows no 12345
    assert told.users == [owner or NOBODY]
    assert {path.lstat().st_uid for path in open_environment.path.rglob("*")} == {owner}


@root_only
@pytest.mark.parametrize("place", ["", "..", "bin", "lib", "bin/python", "SITE/gunicorn", "SITE/gunicorn/util.py"])
def test_whose_code_it_is(place: str, environment: Environment, run: Run) -> None:
    path = environment.path / place.replace("SITE", str(environment.site_packages))
    os.chown(path, 12345, 12345, follow_symlinks=False)
    name = "nobody" if place else "12345"
    start = f"{environment.path} cannot be tested as user {name}, and is not for root to run"
    said = run.refused(start, *TESTS_ONLY, environment)
    assert "belongs to user 12345" in said or not place.startswith("..")
    assert ("run this as user 12345" in said) == (place == "")


def test_what_may_be_run(environment: Environment, tmp_path: Path) -> None:
    """And what leads there; true where it is enough to add a file to a directory."""
    for name in ("named", "linked", "base/bin", "base/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "linked" / "module.py").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "base" / "lib" / "libpython3.so").touch()
    site_packages = environment.site_packages
    (site_packages / "package").symlink_to("../../../../linked")
    (site_packages / "some.pth").symlink_to(tmp_path / "pth")
    (tmp_path / "pth").write_text(f"import os\n{tmp_path}/named\n{tmp_path}/missing/one\n{tmp_path}/loop\n")
    (environment.path / "pyvenv.cfg").write_text(f"home = {tmp_path}/base/bin\n")
    (environment.path / ".lock").touch()
    code = set(user.code(environment))
    found = {path: (path, True) in code for path, _ in code}
    assert {os.path.realpath(environment.python), str(site_packages / "gunicorn" / "util.py")} < set(found)
    assert str(environment.path / ".lock") not in found
    expected = {
        "/": False,
        str(environment.path / "bin"): True,
        str(site_packages): True,
        str(site_packages / "package"): False,
        f"{tmp_path}/linked": True,
        f"{tmp_path}/linked/module.py": True,
        f"{tmp_path}/named": True,
        f"{tmp_path}/loop": False,
        f"{tmp_path}/base/lib/libpython3.so": False,
        f"{tmp_path}/base/lib": True,  # Where it has no standard library
        str(tmp_path): True,  # Where one is missing that a .pth file names
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
