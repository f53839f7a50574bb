"""The worker class as upstream released it, to compare the patched one with."""

import importlib.metadata
from typing import Dict

from usr1 import patches

from properties.target import Target


def pristine(target: Target, worker_class: str) -> Dict[str, str]:
    """The source of the module `pristine_worker`: what the patch in the target was made from."""
    distribution = worker_class.split(".")[0].replace("_", "-")
    [info] = target.path.glob(f"lib/python3.*/site-packages/{distribution.replace('-', '_')}-*.dist-info")
    patch = patches.find(distribution, importlib.metadata.Distribution.at(info).version.partition("+")[0])
    assert patch is not None, f"no patch is pinned to {info.name}"
    source = (info.parent / patch.target).read_bytes()
    if patches.sha256(source) == patch.patched_sha256:
        source = patch.revert(source)
    assert patches.sha256(source) == patch.pristine_sha256, f"{patch.target} is neither pristine nor patched"
    return {"pristine_worker": source.decode()}
