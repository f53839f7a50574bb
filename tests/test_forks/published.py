"""What the index has, as files: uv installs wheels but does not keep them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environments

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "wheels"


def directory(distribution: str, release: str) -> Path:
    """A directory with one published wheel in it, downloaded once."""
    path = CACHE / f"{distribution}-{release}"
    if not path.exists():
        # Later ones refuse the metadata of 0.13.0 to 0.13.2 and 0.14.0, which is not valid
        pip = environments.cached(sys.version_info[:2], "pip==24.0").python
        new = CACHE / f"{path.name}.{os.getpid()}"
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.99", "--dest", str(new)]
        command = [str(pip), "-m", "pip", "download", "--quiet", *options, f"{distribution}==={release}"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        try:
            new.rename(path)
        except OSError:  # Another test was faster
            shutil.rmtree(new)
    return path
