"""What upstream released, to compare a patched server with."""

import compileall
import shutil
from pathlib import Path

import pytest
from usr1 import patches
from usr1.patches import Part

from properties.environment import Environment, release


def published(environment: Environment, path: Path) -> bool:
    """Put each package that a patch is for into a directory as it was published; whether one is patched."""
    patched = False
    for info in environment.path.glob("lib/py*3.*/site-packages/*.dist-info"):
        distribution = info.stem.partition("-")[0].replace("_", "-")
        patch = patches.find(distribution, release(info)) if distribution in patches.DISTRIBUTIONS else None
        if patch is None:
            continue
        for package in {Path(part.target).parts[0] for part in patch.parts}:
            shutil.copytree(info.parent / package, path / package, ignore=shutil.ignore_patterns("__pycache__"))
        for part in patch.parts:
            target = path / part.target
            source = target.read_bytes()
            patched |= patches.sha256(source) == part.patched_sha256
            target.write_bytes(_published(part, source))
    compileall.compile_dir(str(path), quiet=1)
    return patched


def _published(part: Part, source: bytes) -> bytes:
    if patches.sha256(source) == part.patched_sha256:
        source = part.revert(source)
    if patches.sha256(source) != part.pristine_sha256:
        pytest.skip(f"{part.target} is neither as published nor as patched: there is nothing to compare it with")
    return source
