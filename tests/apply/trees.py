"""Installed trees to try the scripts on, and what is true of them."""

import base64
import csv
import functools
import hashlib
import os
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import environments
from usr1 import environment, installed
from usr1.environment import Environment

NEWEST = environments.COMBINATIONS[-1]


def source(release: str = NEWEST, *others: str) -> Environment:
    """An environment made by uv on a Python that the release runs on, not to be changed."""
    pythons = list(environments.pythons())
    python = next((version for version in pythons if version >= (3, 11)), pythons[-1])
    made = environments.cached(python, f"uvicorn=={release}", "gunicorn", *others)
    return environment.find(made.path)


def light(path: Path, like: Environment, python: Optional[Path] = None, bytecode: bool = False) -> Environment:
    """
    A copy of what apply.sh looks at, all made of real files, that costs a few milliseconds.

    With bytecode listed in RECORD, as by pip, if wanted; on another Python than the original, if named.
    """
    (path / "bin").mkdir(parents=True)
    shutil.copy(like.path / "pyvenv.cfg", path)
    (path / "bin" / "python").symlink_to(os.path.realpath(python or like.python))
    copy = environment.find(path)
    copy.site_packages.mkdir(parents=True)
    for pattern in ("uvicorn*", "gunicorn-*"):
        for directory in like.site_packages.glob(pattern):
            shutil.copytree(directory, copy.site_packages / directory.name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("uvicorn", "gunicorn"):
        shutil.copy(like.path / "bin" / name, copy.path / "bin")
    if bytecode:
        compile_all(copy)
    return copy


def check_four_lines(said: str, start: str) -> None:
    """A refusal: what, expected, found, do."""
    assert [line.split(":")[0].strip() for line in said.splitlines()[1:]] == ["expected", "found", "do"], said
    assert start in said.splitlines()[0], said


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
    return (*kind, _timeless(path.name, content) if path.suffix == ".pyc" else content)


def _timeless(name: str, code: bytes) -> bytes:
    """
    Bytecode without the time of its source.

    Before Python 3.11 the marks for objects that occur again are a matter of chance, of what
    else was in the memory of the process that compiled it: there, all that the code consists of.
    """
    minor = int(re.search(r"cpython-3(\d+)", name)[1])  # type: ignore[index]
    start = 4 if minor == 6 else 8
    timeless = code[:start] + b"time" + code[start + 4 :]
    return timeless if minor > 10 else _canonical((3, minor), timeless)


_CANONICAL = """
import marshal, sys

def parts(code):
    names = [name for name in dir(code) if name.startswith("co_") and not callable(getattr(code, name))]
    return [[name, repr(getattr(code, name))] for name in names if name != "co_consts"] + [
        parts(const) if hasattr(const, "co_code") else repr(const) for const in code.co_consts
    ]

data, start = sys.stdin.buffer.read(), int(sys.argv[1])
print(data[:start], parts(marshal.loads(data[start:])))
"""


@functools.lru_cache(maxsize=None)
def _canonical(python: Tuple[int, int], code: bytes) -> bytes:
    start = "12" if python == (3, 6) else "16"
    command = [environments.pythons()[python], "-I", "-S", "-c", _CANONICAL, start]
    return subprocess.run(command, input=code, stdout=subprocess.PIPE, check=True).stdout


def disagreements(target: Environment) -> List[str]:
    """What RECORD says of the files of uvicorn and uvicorn-worker that is not so."""
    wrong = []
    for one in installed.find(target):
        with one.record.open(newline="", encoding="utf-8", errors="replace") as record:
            for name, digest, size in filter(None, csv.reader(record)):
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


_TAKE = """
import marshal, sys
from importlib.machinery import SourceFileLoader


class Loader(SourceFileLoader):
    def source_to_code(self, data, path, **options):
        sys.exit("the bytecode is not taken")


code = Loader("workers", sys.argv[1]).get_code("workers")
assert code.co_filename == sys.argv[1], code.co_filename
assert b"_defer_usr1" in marshal.dumps(code), "the bytecode is of another source"
"""


def check_taken(target: Environment) -> None:
    """The interpreter runs a patched file's bytecode, and it is the patched code."""
    [one] = installed.find(target)
    subprocess.run([target.python, "-B", "-I", "-S", "-c", _TAKE, str(one.file)], check=True)


def wheel(directory: Path, target: Environment) -> None:
    """A wheel of the uvicorn that is installed there, as it is there."""
    directory.mkdir()
    with zipfile.ZipFile(directory / f"uvicorn-{NEWEST}-py3-none-any.whl", "w") as archive:
        for pattern in ("uvicorn/*.py", "uvicorn-*.dist-info/*"):
            for path in target.site_packages.glob(pattern):
                archive.write(path, path.relative_to(target.site_packages))
