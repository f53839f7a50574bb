"""Installed trees to try the scripts on, and what is true of them."""

import base64
import csv
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import environments
from usr1 import environment, installed
from usr1.environment import Environment

NEWEST = environments.COMBINATIONS[-1]


def source(release: str = NEWEST, *others: str) -> Environment:
    """An environment made by uv on the newest Python that the release runs on here, not to be changed."""
    python = max(version for version in environments.pythons() if version <= (3, 13) and _runs(release, version))
    made = environments.cached(python, f"uvicorn=={release}", "gunicorn", *others)
    return environment.find(made.path)


def _runs(release: str, python: Tuple[int, int]) -> bool:
    return python >= (3, 10) or not release.startswith("0.5")


def light(path: Path, like: Environment, bytecode: bool = False) -> Environment:
    """A copy of what apply.sh looks at, with the bytecode that pip would have listed."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(like.path / "pyvenv.cfg", path)
    (path / "bin" / "python").symlink_to(os.path.realpath(like.python))
    copy = environment.find(path)
    copy.site_packages.mkdir(parents=True)
    for pattern in ("uvicorn*", "gunicorn-*"):
        for directory in like.site_packages.glob(pattern):
            shutil.copytree(directory, copy.site_packages / directory.name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("uvicorn", "gunicorn"):
        if (like.path / "bin" / name).exists():
            shutil.copy(like.path / "bin" / name, copy.path / "bin")
    if bytecode:
        compile_all(copy)
    return copy


def compile_all(target: Environment) -> None:
    """As pip does when it installs, RECORD included."""
    for one in installed.find(target):
        subprocess.run([target.python, "-I", "-m", "compileall", "-q", one.file], check=True, stdout=subprocess.DEVNULL)
        cache = one.file.parent / "__pycache__" / f"{one.file.stem}.{target.cache_tag}.pyc"
        with one.record.open("a", newline="") as record:
            record.write(f"{cache.relative_to(target.site_packages)},,\r\n")


Snapshot = Dict[str, Tuple[object, ...]]


def snapshot(path: Path) -> Snapshot:
    """Everything in a directory, times aside."""
    return {os.fspath(entry.relative_to(path)): _entry(entry) for entry in _walk(path)}


def _walk(path: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(path):
        for name in directories + files:
            yield Path(directory, name)


def _entry(path: Path) -> Tuple[object, ...]:
    status = path.lstat()
    kind: Tuple[object, ...] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
    if path.is_symlink():
        return (*kind, os.readlink(path))
    if not path.is_file():
        return kind
    content = path.read_bytes()
    if path.suffix == ".pyc":  # The time of the source is in it, before its size
        start = 4 if b"cpython-36" in os.fsencode(path.name) else 8
        content = content[:start] + b"time" + content[start + 4 :]
    return (*kind, content)


def disagreements(target: Environment) -> List[str]:
    """What RECORD says of the files of uvicorn and uvicorn-worker that is not so."""
    wrong = []
    for one in installed.find(target):
        with one.record.open(newline="") as record:
            for name, digest, size in csv.reader(record):
                file = target.site_packages / name
                if not file.exists():
                    wrong.append(f"{name} is missing")
                elif digest and (digest, size) != (_digest(file.read_bytes()), str(file.stat().st_size)):
                    wrong.append(f"{name} is not {digest}, {size} bytes")
    return wrong


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def stale(target: Environment) -> List[Path]:
    """Bytecode that the interpreter would not take, or would take though it is of another source."""
    caches = [
        (one.file, cache) for one in installed.find(target) for cache in one.file.parent.glob("__pycache__/*.pyc")
    ]
    return [
        cache
        for file, cache in caches
        if cache.name.startswith(file.stem + ".") and not _fresh(file, cache.read_bytes(), target)
    ]


def _fresh(file: Path, code: bytes, target: Environment) -> bool:
    start = 4 if target.cache_tag == "cpython-36" else 8
    status = file.stat()
    expected = (int(status.st_mtime).to_bytes(4, "little"), status.st_size.to_bytes(4, "little"))
    return (code[start : start + 4], code[start + 4 : start + 8]) == expected
