"""Environments of every kind, as other people have them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import environments
import pytest
from pytest import MonkeyPatch
from usr1 import patches
from usr1.apply import apply, installed
from usr1.apply.environment import Environment, find
from usr1.apply.installed import State
from usr1.apply.user import NOBODY, User

from test_apply import trees
from test_apply.trees import Run


def states(environment: Environment) -> Dict[str, State]:
    return {one.distribution: one.state for one in installed.find(environment)}


def check_both_ways(path: Path, environment: Environment) -> None:
    """Patch and put back what is at a path, which may be another name of the environment's."""
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(path)]) == 0
    assert set(states(environment).values()) == {State.PATCHED}
    assert trees.disagreements(environment) == [] and trees.stale(environment) == []
    changed = {name for name, entry in trees.snapshot(environment.path).items() if entry != before.get(name)}
    ours = {file for one in installed.find(environment) for file in one.written}
    assert {environment.path / name for name in changed} <= ours
    assert apply.main(["--revert", str(path)]) == 0
    assert trees.snapshot(environment.path) == before


@pytest.mark.parametrize(
    "option, said, names",
    [
        ("--no-tests", r"(\S+) \S+: patched .*, as before", ["uvicorn-worker", "gunicorn"]),
        ("--revert", r"(\S+) \S+ is as it was published", ["uvicorn"]),
    ],
)
def test_of_two_each_is_told_apart(option: str, said: str, names: List[str], tmp_path: Path, run: Run) -> None:
    """When uvicorn alone has been installed again since all were patched."""
    source = trees.source(trees.NEWEST, "uvicorn-worker")
    both = trees.light(tmp_path / "venv", source)
    run("--no-tests", both)
    for name in ("uvicorn", f"uvicorn-{trees.NEWEST}.dist-info"):
        shutil.copytree(source.site_packages / name, both.site_packages / name, dirs_exist_ok=True)
    assert re.findall(said, run(option, both).out) == names


NEWEST_OF_EACH = ("uvicorn", "uvicorn-worker", "gunicorn")
KINDS = [
    *((release, ("uvicorn", "gunicorn"), n % 5 == 0) for n, release in enumerate(environments.COMBINATIONS)),
    *((trees.NEWEST, kept, True) for kept in (NEWEST_OF_EACH, NEWEST_OF_EACH[1:], NEWEST_OF_EACH[2:])),
]


@pytest.mark.parametrize(
    "release, kept",
    [pytest.param(release, kept, marks=[] if chosen else [pytest.mark.full]) for release, kept, chosen in KINDS],
)
def test_every_combination(release: str, kept: Tuple[str, ...], tmp_path: Path) -> None:
    """Of files and hooks, and of distributions."""
    source = trees.source(release, *(["uvicorn-worker"] if "uvicorn-worker" in kept else []))
    environment = trees.light(tmp_path / "venv", source, bytecode=True)
    if "uvicorn" not in kept:
        for path in (environment.site_packages / "uvicorn", *environment.site_packages.glob("uvicorn-*")):
            shutil.rmtree(path)
    assert set(states(environment)) == set(kept)
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("name", ["with spaces", "ümläut-日本", "quote'\"$(x)", "trailing/", os.fsdecode(b"\xff\xfe")])
def test_names(name: str, tmp_path: Path) -> None:
    environment = trees.light(tmp_path / name, trees.source(), bytecode=True)
    check_both_ways(Path(str(tmp_path) + os.sep + name), environment)


@pytest.mark.parametrize("directory, name", [("", "venv"), ("venv", ".")])
def test_relative(directory: str, name: str, environment: Environment, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.chdir(environment.path.parent / directory)
    check_both_ways(Path(name), environment)


def test_link_to_the_environment(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(environment.path)
    check_both_ways(tmp_path / "link", environment)
    assert (tmp_path / "link").is_symlink()


def test_conda(environment: Environment, tmp_path: Path) -> None:
    """It has no pyvenv.cfg, and its files are hard links to conda's cache of packages."""
    (environment.path / "pyvenv.cfg").unlink()
    (environment.path / "conda-meta").mkdir()
    shutil.copytree(environment.site_packages, tmp_path / "pkgs", copy_function=os.link)
    before = trees.snapshot(tmp_path / "pkgs")
    check_both_ways(environment.path, environment)
    assert trees.snapshot(tmp_path / "pkgs") == before


@pytest.fixture
def linked(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: MonkeyPatch) -> List[Environment]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_LINK_MODE", request.param)
    paths = [tmp_path / "one", tmp_path / "other"]
    return [
        find(environments.make(path, sys.version_info[:2], f"uvicorn=={trees.NEWEST}", "gunicorn").path)
        for path in paths
    ]


@pytest.mark.parametrize("linked", ["hardlink"], indirect=True)
def test_hard_links_to_uv_s_cache(linked: List[Environment], tmp_path: Path, run: Run) -> None:
    """uv makes every environment from the same inodes: writing to one would write to all."""
    one, other = linked
    assert os.path.samefile(trees.workers(one), trees.workers(other))
    shared = [trees.snapshot(path) for path in (other.path, tmp_path / "cache")]
    run("--no-tests", one)
    assert (states(one)["uvicorn"], states(other)["uvicorn"]) == (State.PATCHED, State.PRISTINE)
    assert [trees.snapshot(path) for path in (other.path, tmp_path / "cache")] == shared


@pytest.mark.parametrize("linked", ["symlink"], indirect=True)
def test_symbolic_links_to_uv_s_cache(linked: List[Environment], run: Run) -> None:
    """They are named, and what is advised ends them, whatever the user has set for uv."""
    environment = linked[0]
    said = run("--no-tests", environment, status=2).err
    assert "--only" not in said, "the other one would be refused too"
    for distribution in ("uvicorn", "gunicorn"):
        [metadata] = environment.site_packages.glob(f"{distribution}-*.dist-info/METADATA")
        said = run("--check", "--only", distribution, environment, status=1).out
        assert f": outside the environment ({metadata}, a link to {metadata.resolve()})\n" in said, said
        advice = re.search(r"do: +uv (.*), then run this again", said)
        assert advice and "--link-mode copy" in advice[1]
        subprocess.run(f"{environments.UV} {advice[1]} -q", shell=True, check=True)
    run("--no-tests", environment)


def test_editable_installs_are_refused(environment: Environment, run: Run) -> None:
    direct_url = trees.dist_info(environment) / "direct_url.json"
    direct_url.write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
    said = run.refused("apply.sh: uvicorn lives outside", "--no-tests", environment)
    assert "  found:    an editable install" in said


@pytest.mark.parametrize("python", environments.pythons().values(), ids=str)
def test_every_python(python: Path, tmp_path: Path) -> None:
    """It imports what is there now, whatever it, or an installer, has compiled before."""
    environment = trees.light(tmp_path / "venv", trees.source("0.13.2"), python=python)
    one = trees.only(environment)
    subprocess.run([str(python), "-I", "-S", "-c", _NEVER_CHECKED, *one.contents], check=True)
    for option, patched in (("--no-tests", "True"), ("--revert", "False")) * 2:
        assert apply.main([option, str(environment.path)]) == 0
        imported = [str(python), "-I", "-S", "-c", _IMPORTED, *map(str, one.contents)]
        assert subprocess.run(imported, stdout=subprocess.PIPE, text=True, check=True).stdout == f"{patched}\n"


_NEVER_CHECKED = """
import py_compile, sys
if sys.version_info >= (3, 7):
    py_compile.compile(sys.argv[1], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""

_IMPORTED = """
import marshal, sys
from importlib.machinery import SourceFileLoader
print(b"handle_usr1" in marshal.dumps(SourceFileLoader("workers", sys.argv[1]).get_code("workers")))
"""


@pytest.mark.root
def test_owner_and_mode_are_kept(environment: Environment) -> None:
    for path in environment.site_packages.rglob("*"):
        if os.getuid() == 0:
            os.chown(path, 12345, 54321)
        if path.is_file():
            path.chmod(0o640)
    check_both_ways(environment.path, environment)


def set_modes(path: Path, directories: int, files: int) -> None:
    for one in [path, *path.rglob("*")]:
        one.chmod(directories if one.is_dir() else files)


def locked_by_its_owner(environment: Environment) -> None:
    """To be that user is no help."""
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", environment.path], check=True)
    (environment.site_packages / "uvicorn").chmod(0o555)


OPEN_IT, AS_ROOT = "make it writable, then run this again", "run this again as user 0"
ELSEWHERE = "run this as a user who may look there, or name another"
#: What an ordinary user cannot change, and what is advised: to its owner, and to nobody.
CLOSED: Dict[str, Tuple[Callable[[Environment], object], str, str]] = {
    "locked": (lambda environment: set_modes(environment.site_packages, 0o555, 0o444), OPEN_IT, AS_ROOT),
    "locked by its owner": (locked_by_its_owner, OPEN_IT, OPEN_IT),
    # In a directory that one may write to: the new file would be of another owner.
    "files of others": (lambda environment: set_modes(environment.site_packages, 0o777, 0o666), "", AS_ROOT),
    "not to be looked at": (lambda environment: environment.site_packages.chmod(0o300), OPEN_IT, AS_ROOT),
    "in a directory of others": (lambda environment: environment.path.parent.chmod(0), ELSEWHERE, ELSEWHERE),
}


def contents(directory: Path) -> List[bytes]:
    return [path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()]


@pytest.mark.root
@pytest.mark.parametrize("way", CLOSED)
def test_what_may_not_be_changed(way: str, environment: Environment, open_clone: None, run: Run) -> None:
    """By who runs this; root becomes nobody for it."""
    is_root = os.getuid() == 0
    if way == "files of others" and not is_root:
        pytest.skip("only root can give files away")
    for path in environment.site_packages.parents:  # pytest's directories are for their owner alone
        if path.stat().st_uid == os.getuid() and "pytest" in str(path):
            path.chmod(0o755)
    before = contents(environment.path)
    patches.catalogue("uvicorn")  # Nobody may import what this needs, if it is in root's home
    close, *advice = CLOSED[way]
    close(environment)
    pid = os.fork()
    if pid == 0:
        try:
            if is_root:
                User("nobody", NOBODY, NOBODY, []).become()
            said = run.refused(str(environment.path), "--no-tests", str(environment.path))
            os._exit(0 if advice[is_root] in said else 71)
        finally:
            os._exit(70)
    _, ended = os.waitpid(pid, 0)
    environment.path.parent.chmod(0o755)
    set_modes(environment.site_packages, 0o755, 0o755)
    assert os.waitstatus_to_exitcode(ended) == 0
    assert contents(environment.path) == before
