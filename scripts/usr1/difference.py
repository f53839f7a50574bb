"""What somebody changed in an installed file by hand."""

import difflib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List

from usr1 import patches
from usr1.environment import Environment
from usr1.installed import Installed, release_of

LINES = 30


def show(environment: Environment, installed: Installed) -> str:
    """The first lines of the difference, or why there is none to show: the release comes from the user's index."""
    assert installed.patch is not None
    requirement = f"{installed.distribution}=={release_of(installed.release)}"
    with tempfile.TemporaryDirectory() as directory:
        try:
            _fetch(environment, requirement, directory)
            published = Path(directory, installed.patch.target).read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            return f"(cannot show the difference, because {requirement} cannot be fetched: {error})"
    if patches.sha256(published) != installed.patch.pristine_sha256:
        return f"(cannot show the difference, because the index has another {requirement})"
    named = {requirement: published, f"{requirement}, patched": installed.patch.apply(published)}
    lines = min((_diff(name, content, installed) for name, content in named.items()), key=len)
    more = [f"({len(lines) - LINES} more lines)"] if len(lines) > LINES else []
    return "\n".join(lines[:LINES] + more) or "(the lines are the same, only their endings or their encoding differ)"


def _fetch(environment: Environment, requirement: str, directory: str) -> None:
    options = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", directory, requirement]
    uv = shutil.which("uv")
    if uv:
        command = [uv, "pip", *options, "--python", str(environment.python)]
    else:
        command = [sys.executable, "-m", "pip", *options, "--ignore-requires-python"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True)


def _diff(name: str, content: bytes, installed: Installed) -> List[str]:
    changed = _lines(installed.content)
    return list(difflib.unified_diff(_lines(content), changed, name, str(installed.file), n=1, lineterm=""))


def _lines(content: bytes) -> List[str]:
    return content.decode(errors="backslashreplace").splitlines()
