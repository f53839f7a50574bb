"""The worker class as upstream released it, to compare the patched one with."""

from pathlib import Path
from typing import Dict, List, Tuple

import pytest
from usr1 import patches
from usr1.patches import Part

from properties.environment import Environment, is_own, release

MODULE = "pristine_worker"


def pristine(environment: Environment, worker_class: str) -> Dict[str, str]:
    """
    The source of the module `pristine_worker`: what the patch in the environment was made from.

    Of a class of Gunicorn's own the whole of Gunicorn, to be imported in the place of the patched one.
    """
    site_packages, parts = _find(environment, worker_class)
    sources = {part.target: _published(part, (site_packages / part.target).read_bytes()) for part in parts}
    if not is_own(worker_class):
        [source] = sources.values()
        return {MODULE: source}
    files = {str(path.relative_to(site_packages)): path for path in site_packages.glob("gunicorn/**/*.py")}
    texts = {name: sources.get(name) or path.read_text(encoding="utf-8") for name, path in files.items()}
    return {name[: -len(".py")]: text for name, text in texts.items()}


def _published(part: Part, source: bytes) -> str:
    if patches.sha256(source) == part.patched_sha256:
        source = part.revert(source)
    if patches.sha256(source) != part.pristine_sha256:
        pytest.skip(f"{part.target} is neither as published nor as patched: there is nothing to compare it with")
    return source.decode()


def is_pristine(environment: Environment, worker_class: str) -> bool:
    site_packages, parts = _find(environment, worker_class)
    return all(patches.sha256((site_packages / part.target).read_bytes()) == part.pristine_sha256 for part in parts)


def named(worker_class: str) -> str:
    """What a worker class is called with the modules of pristine()."""
    return worker_class if is_own(worker_class) else f"{MODULE}.{worker_class.rpartition('.')[2]}"


def _find(environment: Environment, worker_class: str) -> Tuple[Path, List[Part]]:
    """The site-packages, and what the patch for the release that is there changes in them."""
    distribution = worker_class.split(".")[0].replace("_", "-")
    [info] = environment.path.glob(f"lib/python3.*/site-packages/{distribution.replace('-', '_')}-*.dist-info")
    patch = patches.find(distribution, release(info))
    if patch is None:
        pytest.skip(f"no patch is for {distribution} {release(info)}: there is nothing to compare it with")
    return info.parent, list(patch.parts)
