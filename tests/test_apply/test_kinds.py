"""Environments of every kind, as other people have them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Tuple

import environments
import pytest
from usr1 import patches
from usr1.apply import apply, installed
from usr1.apply.environment import Environment, find
from usr1.apply.installed import State
from usr1.apply.user import NOBODY, User

from test_apply import trees


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
    assert {environment.path / name for name in changed if not name.endswith(".pyc")} <= ours
    assert apply.main(["--revert", str(path)]) == 0
    assert trees.snapshot(environment.path) == before


def test_of_two_each_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = trees.source(trees.NEWEST, "uvicorn-worker")
    both = trees.light(tmp_path / "venv", source)

    def said(option: str) -> str:
        """What it says when uvicorn alone has been installed again since it was applied to both."""
        apply.main(["--no-tests", str(both.path)])
        for name in ("uvicorn", f"uvicorn-{trees.NEWEST}.dist-info"):
            shutil.rmtree(both.site_packages / name)
            shutil.copytree(source.site_packages / name, both.site_packages / name)
        capsys.readouterr()
        assert apply.main([option, str(both.path)]) == 0
        return capsys.readouterr().out

    assert re.findall(r"(\S+) \S+: patched .*, as before", said("--no-tests")) == ["uvicorn-worker", "gunicorn"]
    assert re.findall(r"(\S+) \S+ is as it was published", said("--revert")) == ["uvicorn"]


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


def test_relative(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(environment.path.parent)
    check_both_ways(Path("venv"), environment)
    monkeypatch.chdir(environment.path)
    check_both_ways(Path("."), environment)


def test_link_to_the_environment(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(environment.path)
    check_both_ways(tmp_path / "link", environment)
    assert (tmp_path / "link").is_symlink()


def test_conda(environment: Environment) -> None:
    """It has no pyvenv.cfg, and its files are hard links to conda's cache of packages."""
    (environment.path / "pyvenv.cfg").unlink()
    (environment.path / "conda-meta").mkdir()
    cache = environment.path.parent / "pkgs"
    shutil.copytree(environment.site_packages, cache, copy_function=os.link)
    before = trees.snapshot(cache)
    check_both_ways(environment.path, environment)
    assert trees.snapshot(cache) == before


def test_hard_links_to_uv_s_cache(tmp_path: Path) -> None:
    """uv makes every environment from the same inodes: writing to one would write to all."""
    variables = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_LINK_MODE": "hardlink"}
    made = []
    for name in ("one", "other"):
        for command in (["venv", "-q", "--python", sys.executable], ["pip", "install", "-q", "--python"]):
            packages = [f"uvicorn=={trees.NEWEST}", "gunicorn"] if command[0] == "pip" else []
            subprocess.run([environments.UV, *command, tmp_path / name, *packages], env=variables, check=True)
        made.append(find(tmp_path / name))
    one, other = made
    files = [environment.site_packages / "uvicorn" / "workers.py" for environment in made]
    assert os.path.samefile(*files)
    shared = [trees.snapshot(path) for path in (other.path, tmp_path / "cache")]
    assert apply.main(["--no-tests", str(one.path)]) == 0
    assert (states(one)["uvicorn"], states(other)["uvicorn"]) == (State.PATCHED, State.PRISTINE)
    assert [trees.snapshot(path) for path in (other.path, tmp_path / "cache")] == shared


def test_symbolic_links_to_uv_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are named, and what is advised ends them, whatever the user has set for uv."""
    for name, value in {"UV_CACHE_DIR": f"{tmp_path}/cache", "UV_LINK_MODE": "symlink"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{environments.UV.parent}:{os.environ['PATH']}")
    venv = tmp_path / "venv"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, venv], check=True)
    packages = [f"uvicorn=={trees.NEWEST}", "gunicorn"]
    subprocess.run(["uv", "pip", "install", "-q", "--python", venv, *packages], check=True)
    environment = find(venv)
    assert apply.main(["--no-tests", str(venv)]) == 2
    assert "--only" not in capsys.readouterr().err, "the other one would be refused too"
    for distribution in ("uvicorn", "gunicorn"):
        [metadata] = environment.site_packages.glob(f"{distribution}-*.dist-info/METADATA")
        found = f"{metadata}, a link to {metadata.resolve()}"
        assert apply.main(["--check", "--only", distribution, str(venv)]) == 1
        said = capsys.readouterr().out
        assert f": outside the environment ({found})\n" in said, said
        advice = re.search(r"do: +(.*), then run this again", said)
        assert advice and "--link-mode copy" in advice[1]
        subprocess.run(f"{advice[1]} -q", shell=True, check=True)
    assert apply.main(["--no-tests", str(venv)]) == 0


def test_editable_installs_are_refused(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    [dist_info] = environment.site_packages.glob("uvicorn-*.dist-info")
    (dist_info / "direct_url.json").write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    said = capsys.readouterr().err
    trees.check_four_lines(said, "apply.sh: uvicorn lives outside")
    assert "  found:    an editable install" in said
    assert trees.snapshot(environment.path) == before


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


def locked(environment: Environment) -> None:
    """Or a file system without room, or anything that keeps the first byte from being written."""
    for path in [environment.site_packages, *environment.site_packages.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def locked_by_its_owner(environment: Environment) -> None:
    """To be that user is no help."""
    if os.getuid() == 0:
        for path in [environment.path, *environment.path.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (environment.site_packages / "uvicorn").chmod(0o555)


def files_of_others(environment: Environment) -> None:
    """In a directory that one may write to: the new file would be of another owner."""
    for path in [environment.site_packages, *environment.site_packages.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)


def not_to_be_looked_at(environment: Environment) -> None:
    environment.site_packages.chmod(0o300)


def in_a_directory_of_others(environment: Environment) -> None:
    environment.path.parent.chmod(0o000)


OPEN_IT, AS_ROOT = "make it writable, then run this again", "run this again as user 0"
ELSEWHERE = "run this as a user who may look there, or name another"
Way = Callable[[Environment], None]
#: What an ordinary user cannot change, and what is advised: to its owner, and to nobody.
CLOSED: Dict[Way, Tuple[str, str]] = {
    locked: (OPEN_IT, AS_ROOT),
    locked_by_its_owner: (OPEN_IT, OPEN_IT),
    files_of_others: ("", AS_ROOT),
    not_to_be_looked_at: (OPEN_IT, AS_ROOT),
    in_a_directory_of_others: (ELSEWHERE, ELSEWHERE),
}


def contents(directory: Path) -> Dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.root
@pytest.mark.parametrize("way", CLOSED, ids=lambda way: way.__name__)
def test_what_may_not_be_changed(
    way: Way, environment: Environment, open_clone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """By who runs this; root becomes nobody for it."""
    is_root = os.getuid() == 0
    if way is files_of_others and not is_root:
        pytest.skip("only root can give files away")
    for path in environment.site_packages.parents:  # pytest's directories are for their owner alone
        if path.stat().st_uid == os.getuid() and "pytest" in str(path):
            path.chmod(0o755)
    before = contents(environment.path)
    patches.catalogue("uvicorn")  # Nobody may import what this needs, if it is in root's home
    way(environment)
    pid = os.fork()
    if pid == 0:
        try:
            if is_root:
                User("nobody", NOBODY, NOBODY, []).become()
            status = apply.main(["--no-tests", str(environment.path)])
            said = capsys.readouterr().err
            trees.check_four_lines(said, str(environment.path))
            os._exit(status if CLOSED[way][is_root] in said else 71)
        finally:
            os._exit(70)
    _, ended = os.waitpid(pid, 0)
    for path in (environment.path.parent, environment.site_packages, environment.site_packages / "uvicorn"):
        path.chmod(0o755)
    for path in environment.site_packages.rglob("*"):
        path.chmod(0o755)
    assert os.waitstatus_to_exitcode(ended) == 2
    assert contents(environment.path) == before
