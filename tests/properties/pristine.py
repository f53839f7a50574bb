"""The worker class as upstream released it, to compare the patched one with."""

import importlib.metadata
from typing import Dict, Tuple

import pytest
from usr1 import patches
from usr1.patches import Patch

from properties.target import Target

MODULE = "pristine_worker"


def pristine(target: Target, worker_class: str) -> Dict[str, str]:
    """The source of the module `pristine_worker`: what the patch in the target was made from."""
    patch, source = _find(target, worker_class)
    if patches.sha256(source) == patch.patched_sha256:
        source = patch.revert(source)
    if patches.sha256(source) != patch.pristine_sha256:
        pytest.skip(f"{patch.target} is neither as published nor as patched: there is nothing to compare it with")
    return {MODULE: source.decode()}


def is_pristine(target: Target, worker_class: str) -> bool:
    patch, source = _find(target, worker_class)
    return patches.sha256(source) == patch.pristine_sha256


def named(worker_class: str) -> str:
    """A worker class as it is called in the module `pristine_worker`."""
    return f"{MODULE}.{worker_class.rpartition('.')[2]}"


def _find(target: Target, worker_class: str) -> Tuple[Patch, bytes]:
    """The patch for the release that is there, and the file as it is."""
    distribution = worker_class.split(".")[0].replace("_", "-")
    [info] = target.path.glob(f"lib/python3.*/site-packages/{distribution.replace('-', '_')}-*.dist-info")
    release = importlib.metadata.Distribution.at(info).version.partition("+")[0]
    patch = patches.find(distribution, release)
    if patch is None:
        pytest.skip(f"no patch is for {distribution} {release}: there is nothing to compare it with")
    return patch, (info.parent / patch.target).read_bytes()
