"""
Virtual environments for the tests: one release of uvicorn with one of gunicorn on one Python.

Each is made once and kept in .cache/environments. Tests that change an environment make their own, which takes a
fraction of a second: uv links its files from its own cache.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple, Union

import pytest
from packaging.version import Version as Release
from usr1 import patches

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "environments"
UV = Path(sys.executable).with_name("uv")

NOBODY = 65534

Version = Tuple[int, int]


class NotInstallable(Exception):
    """The packages do not install together on that Python; the message is the installer's own."""


class Environment(NamedTuple):
    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.path.glob("lib/python3.*/site-packages"))

    def copied(self, path: Path, *patches: str) -> "Environment":
        """A copy with these patches, DISTRIBUTION RELEASE; its bin/python is its own, its other scripts are not."""
        copy = self._replace(path=shutil.copytree(self.path, path, symlinks=True))
        for name in patches:
            patched(copy, *name.split())
        return copy


def run(*command: object, cwd: Union[Path, str, None] = None, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command with these environment variables too; all that it prints is its stdout."""
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def output(*command: object, status: Any = 0, **how: Any) -> str:
    """What a command prints; it must end with this status."""
    answer = run(*command, **how)
    assert answer.returncode == status, answer.stdout
    return answer.stdout


def git(folder: Path, *arguments: object) -> str:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    variables = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    return output("git", *identity, *arguments, cwd=folder, **variables)


def commit_all(folder: Path) -> None:
    """Make a folder a git repository of what is in it."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message=as it is")


def _candidates() -> Iterator[str]:
    for minor, place in itertools.product(range(6, 16), os.environ["PATH"].split(os.pathsep)):
        found = shutil.which(f"python3.{minor}", path=place)
        if found:
            yield found
    yield sys.executable
    yield from map(str, Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    yield from map(str, Path.home().glob(".local/share/uv/python/cpython-3.*/bin/python3"))


@functools.lru_cache(maxsize=None)
def pythons() -> Dict[Version, Path]:
    """The Pythons on this machine, oldest first: on the PATH, pyenv's, uv's; at best one that anybody may run."""
    found: Dict[Version, List[Path]] = {}
    for candidate in _candidates():
        probe = [candidate, "-I", "-S", "-c", "import ensurepip, sys; print(*sys.version_info[:2], sys.base_prefix)"]
        answer = subprocess.run(probe, capture_output=True, text=True)
        if answer.returncode == 0:
            major, minor, prefix = answer.stdout.split(maxsplit=2)
            python = Path(prefix.strip()) / "bin" / f"python{major}.{minor}"
            found.setdefault((int(major), int(minor)), []).append(python)
    return {version: next(filter(is_open, found[version]), found[version][0]) for version in sorted(found)}


@functools.lru_cache(maxsize=None)
def is_open(python: Path) -> bool:
    """Whether an ordinary user may run it: root's may be in root's home, which is closed to others."""
    if os.geteuid() != 0:
        return True
    return subprocess.call(["test", "-x", python], user=NOBODY) == 0


def _commands(path: Path, python: Version, requirements: Tuple[str, ...], compiled: bool) -> List[List[object]]:
    install = [UV, "pip", "install", "--quiet", *requirements]
    if python >= (3, 7):
        return [
            [UV, "venv", "--quiet", "--python", pythons()[python], path],
            [*install, "--python", path, *["--compile-bytecode"] * compiled],
        ]
    # uv does not run it, but knows what there is for it; a pip for it takes fifteen times as long
    target = path / "lib" / "python3.6" / "site-packages"
    elsewhere = ["--python", sys.executable, "--python-version", "3.6", "--only-binary", ":all:"]
    return [
        [pythons()[python], "-m", "venv", "--without-pip", path],
        [*install, *elsewhere, "--target", target],
        ["rm", "-f", target / ".lock"],  # uv's, which anybody may write to
        *[[path / "bin" / "python", "-m", "compileall", "-q", target]] * compiled,
    ]


def make(path: Path, python: Version, *requirements: str, compiled: bool = False) -> Environment:
    """A new one, all or nothing; raises NotInstallable. Many servers, which write no bytecode, want it compiled."""
    for command in _commands(path, python, requirements, compiled):
        answer = run(*command)
        if answer.returncode != 0:
            said = " ".join(re.sub("[×╰├─▶│]", "", answer.stdout).split())
            # Without a network, say, nothing is known of the packages: that is no reason to leave a test out.
            if not re.search("No solution found|Failed to build", said):
                raise RuntimeError(said)
            shutil.rmtree(path, ignore_errors=True)
            raise NotInstallable(said[:300])
    return Environment(path)


def cached(python: Version, *requirements: str) -> Environment:
    """The same environment every time, pristine: not to be changed; raises NotInstallable."""
    key = hashlib.sha256(repr((str(pythons()[python]), requirements)).encode()).hexdigest()[:16]
    path = CACHE / key
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "whole").exists():
            shutil.rmtree(path, ignore_errors=True)
            make(path, python, *requirements, compiled=True)
            (path / "whole").touch()
    return Environment(path)


def packages(release: str, gunicorn: str = "gunicorn", standard: bool = True) -> Tuple[str, ...]:
    """The requirements to serve with a uvicorn release; standard adds only the loop and the parser of [standard]."""
    # Before 0.15.0 workers expect a current event loop, which newer policies of uvloop do not make.
    uvloop = "uvloop<0.22" if Release(release) < Release("0.15.0") else "uvloop"
    return (
        *(f"uvicorn=={release}", gunicorn),
        *["setuptools<81"] * gunicorn.startswith("gunicorn==20."),  # It imports pkg_resources
        *["typing-extensions"] * (release == "0.23.0"),  # Imported before Python 3.11, and not asked for
        *[uvloop, "httptools"] * standard,
    )


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that others may enter, unlike pytest's: the properties serve as nobody, too."""
    with tempfile.TemporaryDirectory(prefix="usr1-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def patched(environment: Environment, distribution: str, release: str) -> None:
    """Put the patched files into an environment, as bytes: what apply.sh does is tested elsewhere."""
    patch = patches.find(distribution, release)
    assert patch is not None, f"no patch for {distribution} {release}"
    for part in patch.parts:
        target = environment.site_packages / part.target
        new = target.with_suffix(f".{os.getpid()}")
        new.write_bytes(part.apply(target.read_bytes()))
        new.replace(target)


@functools.lru_cache(maxsize=None)
def patched_until_exit(original: Environment, *names: str) -> Environment:
    """A copy for this process, with these patches: "DISTRIBUTION RELEASE"; other users may look into it."""
    home = Path(tempfile.mkdtemp(prefix="usr1-"))
    atexit.register(shutil.rmtree, home)
    home.chmod(0o755)
    return original.copied(home / "venv", *names)


#: One release of each combination of file and hook: the newest that the patch names.
COMBINATIONS = tuple(patch.releases[-1] for patch in patches.catalogue("uvicorn"))
NEWEST = COMBINATIONS[-1]
GUNICORN = patches.releases("gunicorn")[-1]

#: From which release on which Python is the oldest that uvicorn runs on: Requires-Python of the wheels,
#: but for 0.17.0, which does not say so and was withdrawn for it.
OLDEST_PYTHON = (
    ("0.13.0", (3, 6)),
    ("0.17.0", (3, 7)),
    ("0.23.0", (3, 8)),
    ("0.34.0", (3, 9)),
    ("0.40.0", (3, 10)),
)


def pythons_for(release: str) -> List[Version]:
    """The Pythons at hand that a uvicorn release runs on, oldest first."""
    oldest = [python for first, python in OLDEST_PYTHON if Release(first) <= Release(release)][-1]
    return [python for python in pythons() if python >= oldest]


UVICORN = "uvicorn.workers.UvicornWorker"
MODULES = {"uvicorn": "uvicorn.workers", "uvicorn-worker": "uvicorn_worker"}

#: What a release asks for: the oldest Python and gunicorn, and the oldest and the newest uvicorn. Before 0.4.0 it
#: calls a method of Config that is gone from uvicorn 0.36.0 on, though it does not say so.
UVICORN_WORKER: Dict[str, Tuple[Version, str, str, str]] = {
    "0.2.0": ((3, 8), "20.1.0", "0.14.0", "0.35.0"),
    "0.3.0": ((3, 9), "20.1.0", "0.15.0", "0.35.0"),
    "0.4.0": ((3, 9), "21.0.0", "0.36.0", NEWEST),
}


class Workers(NamedTuple):
    """A release of a distribution that has worker classes, the release of uvicorn that they run, and what it needs."""

    distribution: str
    release: str
    uvicorn: str
    python: Version
    gunicorn: str

    @property
    def name(self) -> str:
        return f"{self.distribution} {self.release}"

    def __str__(self) -> str:
        return self.name if self.distribution == "uvicorn" else f"{self.name} with uvicorn {self.uvicorn}"

    def pythons(self) -> List[Version]:
        """Those at hand that they run on, oldest first."""
        return [python for python in pythons_for(self.uvicorn) if python >= self.python]

    def packages(self, gunicorn: str = "gunicorn", standard: bool = True) -> Tuple[str, ...]:
        return (f"{self.distribution}=={self.release}", *packages(self.uvicorn, gunicorn, standard))


def uvicorn(release: str) -> Workers:
    return Workers("uvicorn", release, release, (3, 6), "20.0.4")


def workers(distribution: str, release: str) -> List[Workers]:
    """A release with the oldest and the newest uvicorn that it runs with."""
    if distribution == "uvicorn":
        return [uvicorn(release)]
    python, gunicorn, *uvicorns = UVICORN_WORKER[release]
    return [Workers(distribution, release, uvicorn, python, gunicorn) for uvicorn in uvicorns]


#: Each combination of file and hook, and each release of uvicorn-worker with the oldest and the newest uvicorn.
VARIANTS = (
    *map(uvicorn, COMBINATIONS),
    *(one for release in UVICORN_WORKER for one in workers("uvicorn-worker", release)),
)


def parameters(everything: Iterable[Any], by_default: Iterable[str]) -> List[Any]:
    """Of a test: those with these names by default, all of them with --full."""
    return [
        pytest.param(one, id=str(one), marks=[pytest.mark.full] * (str(one) not in by_default)) for one in everything
    ]
