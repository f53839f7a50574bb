"""
Published releases: which ones there are, and the files in their wheels.

pip lists them, as uv cannot; uv downloads them, in a tenth of pip's time. Both reach
the package index as the user set it up.
"""

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import FrozenSet, List

from packaging.version import Version

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "releases"
UV = Path(sys.executable).with_name("uv")


class ReleaseError(Exception):
    """The package index cannot be reached, or does not have the release; the message is pip's or uv's."""


def run(*command: str) -> str:
    """The standard output of a command; raises ReleaseError with what it says when it fails."""
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        raise ReleaseError(f"{' '.join(command)}: {answer.stderr.strip()}")
    return answer.stdout


def published(distribution: str) -> List[str]:
    """The releases that the index offers, oldest first; not the yanked ones; raises ReleaseError."""
    listing = run(sys.executable, "-m", "pip", "index", "versions", "--ignore-requires-python", distribution)
    [versions] = [line for line in listing.splitlines() if line.startswith("Available versions:")]
    return sorted(versions.split(":")[1].replace(",", " ").split(), key=Version)


def unpacked(distribution: str, release: str) -> Path:
    """
    The folder with the files of a release, fetched once; raises ReleaseError.

    They share their inodes with uv's cache: not to be written to.
    """
    folder = CACHE / f"{distribution}-{release}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        new = os.path.join(work, "new")
        # The file is only read, so for any Python: claim one newer than all that a release may require.
        choice = ["--no-deps", "--python", sys.executable, "--python-version", "3.99", "--target", new]
        run(str(UV), "pip", "install", "--quiet", *choice, f"{distribution}=={release}")
        try:
            os.rename(new, folder)
        except OSError:  # Another process was first
            if not folder.exists():
                raise
    return folder


def server_hooks(folder: Path) -> FrozenSet[str]:
    """
    The methods in which the Server of an unpacked uvicorn takes over signals, where it may have both:
    install_signal_handlers() up to 0.28.1, capture_signals() from 0.29.0. Empty for other distributions.
    """
    hooks = {"install_signal_handlers", "capture_signals"}
    found = set()
    for module in (folder / "uvicorn" / "server.py", folder / "uvicorn" / "main.py"):  # main.py up to 0.13.4
        for node in ast.parse(module.read_bytes()).body if module.exists() else []:
            if isinstance(node, ast.ClassDef) and node.name == "Server":
                found |= hooks & {getattr(item, "name", None) for item in node.body}
    return frozenset(found)
