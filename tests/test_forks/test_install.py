"""
The forks installed, with pip and with uv, from wherever people install.

Every combination of file and hook is installed by uv from a directory, from a git repository and
from a private index, and by pip from one of these in turn; with --full all by both from all.
"""

import sys
from pathlib import Path
from typing import List, Set

import environments
import pytest
from properties import run as properties
from usr1 import patches
from usr1.forks import fork

from test_forks.conftest import ROOT

VENDOR = ROOT / "vendor"
NEWEST = patches.releases("uvicorn")[-1]
PYTHON = sys.version_info[:2]

#: Their metadata is not valid, as published and hence in the fork; pip refuses it from 24.1 on.
INVALID = ("0.13.0", "0.13.1", "0.13.2", "0.14.0")


def run(*command: object, **settings: str) -> str:
    """What a command prints; it must succeed."""
    answer = environments.run(*command, **settings)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def installer(name: str, environment: environments.Environment, command: str = "install") -> List[object]:
    if name == "uv":
        return [environments.UV, "pip", command, "--python", environment.python]
    if any(environment.path.glob("lib/python3.*/site-packages/pip")):
        return [environment.python, "-m", "pip", command]
    return [sys.executable, "-m", "pip", "--python", environment.python, command]


def anew(tool: str, distribution: str = "uvicorn") -> List[str]:
    """uv remembers what an address gave it: an index on the port of this one, or a commit."""
    return ["--refresh-package", distribution] if tool == "uv" else []


def make(tmp_path: Path, *requirements: str) -> environments.Environment:
    if requirements:
        return environments.make(tmp_path / "venv", PYTHON, *requirements)
    path = tmp_path / "venv"
    run(environments.UV, "venv", "--python", environments.pythons()[PYTHON], path)
    return environments.Environment(path, ())


def version(distribution: str, release: str) -> str:
    return f"{release}+usr1.{fork.find(distribution, release).revision}"


def installed(environment: environments.Environment, distribution: str = "uvicorn") -> str:
    """The release of the fork in a consistent environment, with the patched file."""
    name = distribution.replace("-", "_")
    [info] = environment.path.glob(f"lib/python3.*/site-packages/{name}-*.dist-info")
    found = info.name[len(name) + 1 : -len(".dist-info")]
    release = found.split("+")[0]
    assert found == version(distribution, release)
    patched = fork.find(distribution, release).patched
    assert {file: patches.sha256((info.parent / file).read_bytes()) for file in patched} == patched
    run(*installer("pip" if "3.6" in info.parts[-3] else "uv", environment, "check"))  # uv knows no Python 3.6
    return release


def test_installed_from_everywhere(
    tool: str, source: str, distribution: str, release: str, index: str, clone: Path, repository: str, tmp_path: Path
) -> None:
    environment = make(tmp_path, *(["pip==24.0"] if tool == "pip" and release in INVALID else []))
    install = installer(tool, environment)
    choose = ["--config-settings", f"version={release}"]
    if source == "directory":
        run(*install, *choose, clone / "vendor" / distribution)
    elif source == "git":
        address = f"{distribution} @ {repository}#subdirectory=vendor/{distribution}"
        run(*install, *anew(tool, distribution), *choose, address)
    else:
        pin = f"{distribution}=={version(distribution, release)}"
        run(*install, *anew(tool, distribution), "--extra-index-url", index, pin)
    assert installed(environment, distribution) == release
    if distribution == "uvicorn" and source == "index":
        assert f"uvicorn {release} with" in run(environment.path / "bin" / "uvicorn", "--version")

    # A pin without the fork's part accepts the fork
    assert "Would make no changes" in run(*installer("uv", environment), "--dry-run", f"{distribution}=={release}")


#: The newest release that runs on each Python on which the newest of all does not.
LAST = {(3, 6): "0.16.0", (3, 7): "0.22.0", (3, 8): "0.33.0", (3, 9): "0.39.0"}


@pytest.mark.full
@pytest.mark.parametrize(
    "python", [python for python in environments.pythons() if python in LAST], ids="{0[0]}.{0[1]}".format
)
def test_an_older_python_gets_the_newest_for_it(python: environments.Version, tmp_path: Path) -> None:
    environment = environments.make(tmp_path / "venv", python, "pip")
    run(*installer("pip", environment), VENDOR / "uvicorn")
    assert installed(environment) == LAST[python]


@pytest.mark.full
def test_extras(repository: str, tmp_path: Path) -> None:
    environment = make(tmp_path)
    run(*installer("uv", environment), f"uvicorn[standard] @ {repository}#subdirectory=vendor/uvicorn")
    assert installed(environment) == NEWEST
    run(environment.python, "-c", "import httptools, uvloop, watchfiles, websockets")


@pytest.mark.parametrize("tool", [pytest.param("pip", marks=pytest.mark.full), "uv"])
def test_fastapi_accepts_it(tool: str, tmp_path: Path) -> None:
    environment = make(tmp_path, "fastapi[standard]")
    run(*installer(tool, environment), VENDOR / "uvicorn")
    run(*installer(tool, environment), "fastapi[standard]", f"uvicorn=={NEWEST}")
    assert installed(environment) == NEWEST


def files(environment: environments.Environment) -> Set[Path]:
    return {path for path in environment.path.rglob("*") if "__pycache__" not in path.parts and path.name != ".lock"}


@pytest.mark.parametrize("tool", [pytest.param("pip", marks=pytest.mark.full), "uv"])
def test_upgraded_and_uninstalled_it_leaves_nothing(tool: str, index: str, tmp_path: Path) -> None:
    environment = make(tmp_path, "click", "h11", "gunicorn")
    before = files(environment)
    older = [release for release in patches.releases("uvicorn") if release in environments.COMBINATIONS][-2]
    pin = f"uvicorn=={version('uvicorn', older)}"
    run(*installer(tool, environment), *anew(tool), "--extra-index-url", index, pin)
    assert installed(environment) == older
    run(*installer(tool, environment), "--upgrade", VENDOR / "uvicorn")
    assert installed(environment) == NEWEST
    again = "--force-reinstall" if tool == "pip" else "--reinstall"
    run(*installer(tool, environment), again, "--no-deps", f"uvicorn==={NEWEST}")
    [info] = environment.path.glob("lib/python3.*/site-packages/uvicorn-*.dist-info")
    assert info.name == f"uvicorn-{NEWEST}.dist-info"
    run(*installer(tool, environment), VENDOR / "uvicorn")
    run(*installer(tool, environment, "uninstall"), *(["--yes"] if tool == "pip" else []), "uvicorn")
    assert files(environment) == before


@pytest.mark.parametrize("chosen", ["", NEWEST])
@pytest.mark.parametrize("tool", [pytest.param("pip", marks=pytest.mark.full), "uv"])
def test_an_index_with_the_forks_too(tool: str, chosen: str, index: str, tmp_path: Path) -> None:
    """There uvicorn==X.Y.Z means the fork, from which no fork can be made."""
    environment = make(tmp_path)
    settings = {"UVICORN_USR1_VERSION": chosen, "UV_INDEX_STRATEGY": "unsafe-best-match"}
    addresses = {"PIP_EXTRA_INDEX_URL": index, "UV_EXTRA_INDEX_URL": index}
    run(*installer(tool, environment), *anew(tool), VENDOR / "uvicorn", **settings, **addresses)
    assert installed(environment) == NEWEST


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_pinned_by_hash(tool: str, index: str, wheels: Path, tmp_path: Path) -> None:
    environment = make(tmp_path, "click", "h11")
    [wheel] = wheels.glob(f"uvicorn-{NEWEST}+*.whl")
    requirements = tmp_path / "requirements.txt"
    install = [*installer(tool, environment), *anew(tool), "--no-deps", "--require-hashes"]
    install += ["--index-url", index, "-r", requirements]
    pin = f"uvicorn=={version('uvicorn', NEWEST)} --hash=sha256:"
    requirements.write_text(pin + patches.sha256(wheel.read_bytes()))
    run(*install)
    assert installed(environment) == NEWEST
    run(*installer(tool, environment, "uninstall"), *(["--yes"] if tool == "pip" else []), "uvicorn")
    requirements.write_text(pin + patches.sha256(b"another"))
    with pytest.raises(AssertionError, match="(?i)hash"):
        run(*install, "--no-cache-dir" if tool == "pip" else "--no-cache")


def test_uv_does_not_keep_an_older_wheel(clone: Path, tmp_path: Path) -> None:
    """From a requirements file, where it builds only if what it is told to watch has changed."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"uvicorn @ file://{clone}/vendor/uvicorn\n")
    for n, release in enumerate((NEWEST, "0.35.0", NEWEST)):
        environment = make(tmp_path / f"{n}")
        run(*installer("uv", environment), "-r", requirements, UVICORN_USR1_VERSION=release)
        assert installed(environment) == release


@pytest.mark.full
@pytest.mark.parametrize("source", ["directory", "index"])
def test_the_signal_properties_hold(source: str, index: str, tmp_path: Path) -> None:
    """In an environment of the fork and gunicorn, and nothing else."""
    environment = make(tmp_path)
    if source == "directory":
        run(*installer("pip", environment), VENDOR / "uvicorn", "gunicorn")
    else:
        pin = f"uvicorn=={version('uvicorn', NEWEST)}"
        run(*installer("pip", environment), "--extra-index-url", index, pin, "gunicorn")
    assert installed(environment) == NEWEST
    status, output = properties.run(environment.path)
    assert status == 0, output


def test_apply_recognises_it(tmp_path: Path) -> None:
    environment = make(tmp_path, "gunicorn")
    run(*installer("uv", environment), *(VENDOR / distribution for distribution in patches.DISTRIBUTIONS))
    apply = ROOT / "scripts" / "apply.sh"
    found = run(apply, "--check", environment.path)
    for distribution in patches.DISTRIBUTIONS:
        assert f"{distribution} {version(distribution, patches.releases(distribution)[-1])}: fork" in found
    before = {path: path.read_bytes() for path in files(environment) if path.is_file()}
    run(apply, "--no-tests", environment.path)
    assert {path: path.read_bytes() for path in files(environment) if path.is_file()} == before
