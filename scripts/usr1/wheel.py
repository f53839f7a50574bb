"""
Wheels as their files: fetched, read back from an installation, packed into an archive.

Specified by https://packaging.python.org/en/latest/specifications/binary-distribution-format/
and https://packaging.python.org/en/latest/specifications/recording-installed-packages/.
This runs in users' build environments: standard library only, Python 3.6 and later.
"""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Dict, Sequence, Tuple

from usr1 import patches, record
from usr1.refusal import refusal

#: The files of a wheel by their names in the archive, without RECORD, which pack() makes.
Files = Dict[str, bytes]

#: When its files were last changed, as its archive has it.
Date = Tuple[int, int, int, int, int, int]

#: What installers put beside a wheel's own files in .dist-info.
INSTALLERS_OWN = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}

#: 1980-01-01 and the end of 2107, all that a zip archive can hold, in seconds since the epoch.
EARLIEST, LATEST = 315532800, 4354819199


def escape(distribution: str) -> str:
    """A distribution's name as file names have it."""
    return distribution.replace("-", "_")


def dist_info(files: Files) -> str:
    """The name of the .dist-info directory."""
    return next(name.split("/")[0] for name in files if name.split("/")[0].endswith(".dist-info"))


def fetch(distribution: str, release: str, directory: str) -> None:
    """
    Put the files of a published release into a directory, by uv or else by pip, with the user's settings.

    Raises Refusal, with what the installer says, if it cannot be had.
    """
    uv = shutil.which("uv") if sys.version_info >= (3, 7) else None  # It knows no older Python
    if uv:
        installer = [uv, "pip", "install", "--python", sys.executable]
    else:
        # The metadata of 0.13.0 to 0.13.2 and 0.14.0 is not valid; this resolver does not mind
        installer = [sys.executable, "-m", "pip", "install", "--use-deprecated=legacy-resolver"]
    # Its files are only read, so for any Python: claim one newer than all that a release may require
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", "3.99", "--target", directory]
    command = [*installer, *options, f"{distribution}==={release}"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if answer.returncode != 0:
        raise refusal(
            f"{distribution} {release} cannot be fetched",
            f"its wheel, from {' '.join(command[:3])} ...",
            answer.stdout.decode(errors="replace").strip(),
            f"look at the network, the index and the settings of {'uv' if uv else 'pip (taken if there is no uv)'}",
        )


def installed(distribution: str, path: Sequence[str]) -> Files:
    """
    The files of the wheel that a distribution on a module search path was installed from.

    Without what its installer made: scripts, bytecode and notes of its own.
    Raises Refusal if there is none, or if a file is not the one that RECORD names.
    """
    name = escape(distribution)
    found = [info for entry in path for info in Path(entry).glob(name + "-*.dist-info")]
    if not found:
        raise refusal(
            f"{distribution} cannot be read from the build environment",
            f"the published {distribution} in one of {list(path)}",
            "none",
            "build with isolation, so that the installer puts it there",
        )
    info = found[0]
    files = {}
    for file, digest, _ in csv.reader((info / "RECORD").read_text(encoding="utf-8").splitlines()):
        directory, *_, last = file.split("/")
        if directory not in (name, info.name) or "__pycache__" in file:
            continue
        if directory == info.name and last in INSTALLERS_OWN:
            continue
        files[file] = _recorded(info.parent / file, digest)
    return files


def digest(files: Files) -> str:
    """A SHA-256 of all files, whoever installed them: of what sha256sum says of each."""
    lines = (f"{patches.sha256(files[name])}  {name}\n" for name in sorted(files))
    return patches.sha256("".join(lines).encode())


def _recorded(path: Path, digest: str) -> bytes:
    data = path.read_bytes() if path.is_file() else b""
    if digest and _digest(data) != digest:
        raise refusal(
            f"{path} is not as it was published",
            f"{digest}, from its RECORD",
            _digest(data) if path.is_file() else "no file",
            "clear the installer's cache (uv cache clean, pip cache purge), and build again",
        )
    return data


def _digest(data: bytes) -> str:
    return record.digest(patches.sha256(data))


def pack(files: Files, directory: Path) -> Path:
    """
    Write the wheel with these files into a directory, whole or not at all.

    The same files give the same bytes on every machine, Python and day; SOURCE_DATE_EPOCH
    (https://reproducible-builds.org/specs/source-date-epoch/) dates them. Raises Refusal
    if that is not a number of seconds.
    """
    name, archive = packed(files, _date())
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / name, archive)
    return directory / name


def packed(files: Files, date: Date = (1980, 1, 1, 0, 0, 0)) -> Tuple[str, bytes]:
    """The name of the wheel with these files, and its bytes."""
    info = dist_info(files)
    tags = [tag.split("-") for tag in re.findall(r"^Tag: (\S+)$", files[info + "/WHEEL"].decode(), re.MULTILINE)]
    tag = "-".join(".".join(sorted(set(each))) for each in zip(*tags))  # Of py2-none-any and py3-none-any, say
    return f"{info[: -len('.dist-info')]}-{tag}.whl", _archive(files, info + "/RECORD", date)


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=str(path.parent), prefix=".") as scratch:
        new = Path(scratch, path.name)
        new.write_bytes(data)
        new.replace(path)


def _archive(files: Files, record: str, date: Date) -> bytes:
    # The .dist-info directory goes last, as the format recommends, and RECORD after all that it names
    names = sorted(files, key=lambda name: (".dist-info/" in name, name))
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerows((name, _digest(files[name]), len(files[name])) for name in names)
    writer.writerow((record, "", ""))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in [*((name, files[name]) for name in names), (record, rows.getvalue().encode())]:
            # Stored: what deflate makes of the same bytes differs between builds of zlib
            entry = zipfile.ZipInfo(name, date)
            entry.create_system = 3  # Unix, for the permissions
            entry.external_attr = 0o100644 << 16
            new.writestr(entry, data)
    return archive.getvalue()


def _date() -> Date:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not re.fullmatch(r"[0-9]{1,10}", epoch) or int(epoch) > LATEST:
        expected = f"seconds since 1970, {LATEST} at most: a zip archive holds no date after 2107"
        raise refusal("SOURCE_DATE_EPOCH makes no sense", expected, repr(epoch), "set it to such, or unset it")
    year, month, day, hour, minute, second = time.gmtime(max(int(epoch), EARLIEST))[:6]
    return year, month, day, hour, minute, second
