"""Installed trees to try the scripts on, and what is true of them."""

import csv
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import environments
import pytest
from test_forks.conftest import said
from usr1 import patches, record
from usr1.apply import apply, change, files, installed, proof
from usr1.apply.environment import Environment, find

NEWEST = environments.COMBINATIONS[-1]
SCRIPTS = patches.PATCHES.parent / "scripts"


def source(release: str = NEWEST, *others: str) -> Environment:
    """An environment made by uv on a Python that the release runs on, not to be changed."""
    pythons = list(environments.pythons())
    python = next((version for version in pythons if version >= (3, 11)), pythons[-1])
    return find(environments.cached(python, f"uvicorn=={release}", "gunicorn", *others).path)


def light(path: Path, like: Environment, python: Optional[Path] = None) -> Environment:
    """
    A copy of what apply.sh looks at, all made of real files, that costs a few milliseconds.

    With bytecode listed in RECORD, as by pip; on another Python than the original, if named.
    """
    python = Path(os.path.realpath(python or like.python))
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to(python)
    (path / "pyvenv.cfg").write_text(f"home = {python.parent}\nversion = {python.name[len('python') :]}\n")
    (path / "lib" / python.name / "site-packages").mkdir(parents=True)
    copy = find(path)
    for directory in like.site_packages.glob("*icorn*"):
        shutil.copytree(directory, copy.site_packages / directory.name, ignore=shutil.ignore_patterns("*.pyc"))
    for script in like.path.glob("bin/*icorn*"):
        text = script.read_bytes().replace(os.fsencode(like.path), os.fsencode(path))
        (copy.path / "bin" / script.name).write_bytes(text)
    compile_all(copy)
    for one in installed.find(copy):
        with one.record.open("a", newline="") as lines:
            made = [cache for path in one.contents for cache in caches(path)]
            lines.writelines(f"{cache.relative_to(copy.site_packages)},,\r\n" for cache in made)
    return copy


def only(environment: Environment, distribution: str = "uvicorn") -> installed.Installed:
    [one] = installed.find(environment, [distribution])
    return one


def workers(environment: Environment) -> Path:
    return environment.site_packages / "uvicorn" / "workers.py"


def dist_info(environment: Environment) -> Path:
    """uvicorn's."""
    [path] = environment.site_packages.glob("uvicorn-*.dist-info")
    return path


def uninstall(environment: Environment, distribution: str = "uvicorn") -> None:
    name = distribution.replace("-", "_")
    for path in (environment.site_packages / name, *environment.site_packages.glob(f"{name}-*")):
        shutil.rmtree(path)


class Said(NamedTuple):
    out: str
    err: str


class Run:
    """scripts/apply.sh in this process; what only looks, and what is refused, must change nothing."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: Union[str, Path, Environment], status: int = 0) -> Said:
        places = [one.path if isinstance(one, Environment) else one for one in arguments]
        looks = status == 2 or not {"--check", "--dry-run", "--tests-only"}.isdisjoint(arguments)
        before = {place: snapshot(place) for place in places if looks and isinstance(place, Path)}
        self.capsys.readouterr()
        assert apply.main(list(map(str, places))) == status
        assert {place: snapshot(place) for place in before} == before
        return Said(*self.capsys.readouterr())

    def refused(self, start: str, *arguments: Union[str, Path, Environment]) -> str:
        """Four lines: what, which starts like this, expected, found, do."""
        out, err = self(*arguments, status=2)
        message = out if "--check" in arguments else err
        assert start in said(message)[0]
        return message


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The newest uvicorn, pristine, with bytecode listed in RECORD."""
    return light(tmp_path / "venv", source())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where anybody may look, unlike pytest's own directories."""
    with environments.open_directory() as directory:
        yield directory


@pytest.fixture
def root(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the properties that are run are, in the place of ours, which have tests of their own."""
    monkeypatch.setattr(proof, "ROOT", place / "root")
    return place / "root"


MODULE = [sys.executable, "-m", "usr1.apply.apply"]


def variables(**more: str) -> Dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SCRIPTS), **more}


def start(*command: object) -> "subprocess.Popen[str]":
    """The same in a process, and a session, of its own."""
    return subprocess.Popen(
        list(map(str, command)), env=variables(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def fail(number: int = errno.EIO) -> None:
    raise OSError(number, os.strerror(number))


Act = Callable[[], object]


def before(monkeypatch: pytest.MonkeyPatch, operation: str, number: int, act: Act) -> List[Tuple[object, ...]]:
    """Have something happen before the so-many-th operation of a kind: of Tree, or of change; the arguments of all."""
    owner = files.Tree if hasattr(files.Tree, operation) else change
    original, calls = getattr(owner, operation), []

    def preceded(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == number:
            act()
        return original(*arguments)

    monkeypatch.setattr(owner, operation, preceded)
    return calls


def compiled(environment: Environment) -> Dict[Path, bytes]:
    """Bytecode that tells what it is of: it is the source itself."""
    sources = {path: content for one in installed.find(environment) for path, content in one.contents.items()}
    return {cache: content for path, content in sources.items() for cache in caches(path)}


def compile_all(environment: Environment) -> None:
    for cache, content in compiled(environment).items():
        cache.parent.mkdir(exist_ok=True)
        cache.write_bytes(content)


def stale(environment: Environment) -> List[Path]:
    """Bytecode of what the source is no more."""
    return [
        cache for cache, content in compiled(environment).items() if cache.exists() and cache.read_bytes() != content
    ]


def caches(source: Path) -> List[Path]:
    stem = source.parent / "__pycache__" / source.stem
    return [Path(f"{stem}.cpython-{tag}.pyc") for tag in ("311", "311.opt-2", "36")]


Snapshot = Dict[str, Tuple[object, ...]]


def snapshot(path: Path, compiled: bool = False) -> Snapshot:
    """Everything in a directory but times and, unless wanted, bytecode."""
    found: Snapshot = {}
    for one in path.rglob("*"):
        if compiled or one.suffix != ".pyc":
            status = one.lstat()
            content = os.readlink(one) if one.is_symlink() else one.read_bytes() if one.is_file() else None
            mode = stat.filemode(status.st_mode)
            found[os.fspath(one.relative_to(path))] = mode, status.st_uid, status.st_gid, content
    return found


def disagreements(environment: Environment) -> List[str]:
    """What RECORD says of the files of the distributions that is not so."""
    wrong = []
    for one in installed.find(environment):
        with one.record.open(newline="", encoding="utf-8", errors="replace") as lines:
            for name, digest, size in filter(None, csv.reader(lines)):
                file = environment.site_packages / name
                if not digest or name.startswith("../"):
                    continue  # Those in bin/ light() has rewritten
                content = file.read_bytes() if file.exists() else b""
                if (digest, size) != (record.digest(patches.sha256(content)), str(len(content))):
                    wrong.append(f"{name} is not {digest}, {size} bytes")
    return wrong
