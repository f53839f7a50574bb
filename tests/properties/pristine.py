"""The worker class as upstream released it, to compare the patched one with."""

from typing import Dict, Tuple

import pytest
from usr1 import patches
from usr1.patches import Part

from properties.environment import Environment

MODULE = "pristine_worker"


def pristine(environment: Environment, worker_class: str) -> Dict[str, str]:
    """The source of the module `pristine_worker`: what the patch in the environment was made from."""
    part, source = _find(environment, worker_class)
    if patches.sha256(source) == part.patched_sha256:
        source = part.revert(source)
    if patches.sha256(source) != part.pristine_sha256:
        pytest.skip(f"{part.target} is neither as published nor as patched: there is nothing to compare it with")
    return {MODULE: source.decode()}


def is_pristine(environment: Environment, worker_class: str) -> bool:
    part, source = _find(environment, worker_class)
    return patches.sha256(source) == part.pristine_sha256


def named(worker_class: str) -> str:
    """A worker class as it is called in the module `pristine_worker`."""
    return f"{MODULE}.{worker_class.rpartition('.')[2]}"


def _find(environment: Environment, worker_class: str) -> Tuple[Part, bytes]:
    """The patch for the release that is there, which changes one file, and that file as it is."""
    distribution = worker_class.split(".")[0].replace("_", "-")
    [info] = environment.path.glob(f"lib/python3.*/site-packages/{distribution.replace('-', '_')}-*.dist-info")
    release = info.stem.partition("-")[2].partition("+")[0]
    patch = patches.find(distribution, release)
    if patch is None:
        pytest.skip(f"no patch is for {distribution} {release}: there is nothing to compare it with")
    [part] = patch.parts
    return part, (info.parent / part.target).read_bytes()
