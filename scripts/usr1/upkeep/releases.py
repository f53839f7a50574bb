"""
Published releases: which ones there are, and the files in their wheels.

pip lists them, as uv cannot, from the package index as the user set it up.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Callable, List

from packaging.version import Version

from usr1 import wheel
from usr1.refusal import Refusal

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "releases"
UV = Path(sys.executable).with_name("uv")


def run(*command: str) -> str:
    """The standard output of a command; raises Refusal with what it says when it fails."""
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace")
    if answer.returncode != 0:
        raise Refusal(f"{' '.join(command)}: {answer.stderr.strip()}")
    return answer.stdout


def published(distribution: str) -> List[str]:
    """The releases that the index offers, oldest first; not the yanked ones; raises Refusal."""
    listing = run(sys.executable, "-m", "pip", "index", "versions", "--ignore-requires-python", distribution)
    [versions] = [line for line in listing.splitlines() if line.startswith("Available versions:")]
    return sorted(versions.split(":")[1].replace(",", " ").split(), key=Version)


def _kept(name: str, fetch: Callable[[Path], Path]) -> Path:
    """The folder of that name in the cache; when there is none, the one that fetch(work folder) makes."""
    folder = CACHE / name
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        new = fetch(Path(work))
        try:
            new.rename(folder)
        except OSError:  # Another process was first
            if not folder.exists():
                raise
    return folder


def unpacked(distribution: str, release: str) -> Path:
    """
    The folder with the files of a release's wheel, fetched once; raises Refusal.

    They may share their inodes with uv's cache: not to be written to.
    """

    def fetch(work: Path) -> Path:
        wheel.fetch(distribution, release, str(work / "new"))
        return work / "new"

    return _kept(f"{distribution}-{release}", fetch)


def source(distribution: str, release: str) -> Path:
    """The folder with the files of a release's source archive, fetched once; raises Refusal."""

    def fetch(work: Path) -> Path:
        choice = ["--quiet", "--no-deps", "--ignore-requires-python", "--no-binary", distribution, "--dest", str(work)]
        run(sys.executable, "-m", "pip", "download", *choice, f"{distribution}=={release}")
        [archive] = work.glob("*.tar.gz")
        with tarfile.open(archive) as files:
            files.extractall(work)
        return work / archive.name[: -len(".tar.gz")]

    return _kept(f"{distribution}-{release}.source", fetch)
