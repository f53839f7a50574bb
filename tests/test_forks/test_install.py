"""The forks installed, with pip and with uv, from wherever people install."""

import sys
from pathlib import Path
from typing import Any, Dict, List, Set

import environments
import pytest
from environments import NEWEST, output
from test_apply import conftest as trees
from usr1 import patches
from usr1.apply.environment import find
from usr1.apply.installed import State, release_of

from test_forks.conftest import BY_DEFAULT, EVERY, ROOT, version

VENDOR = ROOT / "vendor"
PIP_TOO = pytest.mark.parametrize("tool", [pytest.param("pip", marks=pytest.mark.full), "uv"])
ONE = [("uvicorn", NEWEST)]
#: All by both from everywhere; by default only one by pip, which takes ten times as long, and from git.
INSTALLATIONS = [
    pytest.param(tool, source, *case, marks=[pytest.mark.full] * (case not in by_default))
    for case in EVERY
    for source, by_uv, by_pip in (("directory", BY_DEFAULT, ONE), ("git", ONE, []), ("index", BY_DEFAULT, []))
    for tool, by_default in (("uv", by_uv), ("pip", by_pip))
]

#: Their metadata is not valid, as published and hence in the fork; pip refuses it from 24.1 on.
INVALID = "0.13.0", "0.13.1", "0.13.2", "0.14.0"


def pip(tool: str, venv: Path, command: str, *arguments: object, **how: Any) -> str:
    python = venv / "bin" / "python"
    start = [environments.UV, "pip", command, "--python", python] if tool == "uv" else [python, "-m", "pip", command]
    return output(*start, *arguments, **how)


def install(tool: str, venv: Path, *arguments: object, **how: Any) -> str:
    """Anew, as uv remembers what an address gave it: an index on the port of this one, or a commit."""
    anew = [f"--refresh-package={name}" for name in patches.DISTRIBUTIONS] if tool == "uv" else []
    return pip(tool, venv, "install", *anew, *arguments, **how)


def make(tmp_path: Path, *packages: str) -> Path:
    return environments.make(tmp_path / "venv", sys.version_info[:2], *(packages or ["pip"])).path


def installed(venv: Path, name: str = "uvicorn") -> str:
    """The release of the fork in a consistent environment, as apply.sh recognises it."""
    environment = find(venv)
    one = trees.only(environment, name)
    release = release_of(one.release)
    assert (one.state, one.release, one.applied) == (State.FORK, version(name, release), one.patch)
    pip("pip" if environment.version.startswith("3.6") else "uv", venv, "check")  # uv knows no Python 3.6
    return release


@pytest.mark.parametrize("tool, source, name, release", INSTALLATIONS)
def test_installed_from_everywhere(
    tool: str, source: str, name: str, release: str, index: str, clone: Path, tmp_path: Path
) -> None:
    venv = make(tmp_path, "pip==24.0" if release in INVALID else "pip")
    choose = ["--config-settings", f"version={release}"]
    # pip before 24.1 asks for a host
    address = f"{name} @ git+file://localhost{clone}#subdirectory=vendor/{name}"
    pin = f"{name}=={version(name, release)}"
    arguments: Dict[str, List[object]] = {
        "directory": [*choose, clone / "vendor" / name],
        "git": [*choose, address],
        "index": ["--extra-index-url", index, pin],
    }
    install(tool, venv, *arguments[source])
    assert installed(venv, name) == release
    if name == "uvicorn" and source == "index":
        assert f"uvicorn {release} with" in output(venv / "bin" / "uvicorn", "--version")
    # A pin without the fork's part accepts it
    assert "Would make no changes" in install("uv", venv, "--dry-run", f"{name}=={release}")


@pytest.mark.full
@pytest.mark.parametrize("python", environments.pythons(), ids="{0[0]}.{0[1]}".format)
def test_each_python_gets_the_newest_for_it(python: environments.Version, tmp_path: Path) -> None:
    venv = environments.make(tmp_path / "venv", python, "pip").path
    install("pip", venv, VENDOR / "uvicorn")
    releases = patches.releases("uvicorn")
    assert installed(venv) == [one for one in releases if python in environments.pythons_for(one)][-1]


@PIP_TOO
def test_fastapi_accepts_it(tool: str, tmp_path: Path) -> None:
    venv = make(tmp_path, "fastapi[standard]", "pip")
    install(tool, venv, VENDOR / "uvicorn")
    install(tool, venv, "fastapi[standard]", f"uvicorn=={NEWEST}")
    assert installed(venv) == NEWEST


def files(venv: Path) -> Set[Path]:
    return {path for path in venv.rglob("*") if "__pycache__" not in path.parts and path.name != ".lock"}


@PIP_TOO
def test_upgraded_and_uninstalled_it_leaves_nothing(tool: str, index: str, tmp_path: Path) -> None:
    venv = make(tmp_path, "click", "h11", "gunicorn", "pip")
    before = files(venv)
    older = environments.COMBINATIONS[-2]
    pin = f"uvicorn=={version('uvicorn', older)}"
    install(tool, venv, "--extra-index-url", index, pin)
    assert installed(venv) == older
    install(tool, venv, "--upgrade", VENDOR / "uvicorn")
    assert installed(venv) == NEWEST
    again = "--force-reinstall" if tool == "pip" else "--reinstall"
    install(tool, venv, again, "--no-deps", f"uvicorn==={NEWEST}")
    [info] = venv.glob("lib/python3.*/site-packages/uvicorn-*.dist-info")
    assert info.name == f"uvicorn-{NEWEST}.dist-info"
    install(tool, venv, VENDOR / "uvicorn")
    pip(tool, venv, "uninstall", *(["--yes"] if tool == "pip" else []), "uvicorn")
    assert files(venv) == before


@pytest.mark.parametrize(
    "options, chosen, message",
    [
        (["--config-settings", "editable_mode=compat"], "0.12.3", "no patch is pinned to uvicorn 0.12.3\n"),
        (["--no-index"], NEWEST, f"=={NEWEST}"),  # The installer's own message, which names what it looked for
    ],
)
@PIP_TOO
def test_the_installer_shows_why(tool: str, options: List[str], chosen: str, message: str, tmp_path: Path) -> None:
    venv = make(tmp_path)
    before = files(venv)
    status = 2 if tool == "uv" else 1
    answer = install(tool, venv, *options, VENDOR / "uvicorn", status=status, UVICORN_USR1_VERSION=chosen)
    assert "uvicorn" in answer and message in answer and "Traceback" not in answer
    assert files(venv) == before


@pytest.mark.parametrize("chosen", ["", NEWEST])
@PIP_TOO
def test_an_index_with_the_forks_too(tool: str, chosen: str, index: str, tmp_path: Path) -> None:
    """There uvicorn==X.Y.Z means the fork, from which no fork can be made."""
    venv = make(tmp_path)
    settings = {"UVICORN_USR1_VERSION": chosen, "UV_INDEX_STRATEGY": "unsafe-best-match"}
    addresses = {"PIP_EXTRA_INDEX_URL": index, "UV_EXTRA_INDEX_URL": index}
    install(tool, venv, VENDOR / "uvicorn", **settings, **addresses)
    assert installed(venv) == NEWEST


@PIP_TOO
def test_pinned_by_hash(tool: str, index: str, wheels: Path, tmp_path: Path) -> None:
    venv, requirements = make(tmp_path, "click", "h11", "pip"), tmp_path / "requirements.txt"
    [wheel] = wheels.glob(f"uvicorn-{NEWEST}+*.whl")
    options = ["--no-deps", "--require-hashes", "--index-url", index, "-r", requirements]
    pin = f"uvicorn=={version('uvicorn', NEWEST)} --hash=sha256:"
    requirements.write_text(pin + patches.sha256(wheel.read_bytes()))
    install(tool, venv, *options)
    assert installed(venv) == NEWEST


def test_uv_does_not_keep_an_older_wheel(clone: Path, tmp_path: Path) -> None:
    """From a requirements file, where it builds only if what it is told to watch has changed."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"uvicorn @ file://{clone}/vendor/uvicorn\n")
    for n, release in enumerate((NEWEST, "0.35.0", NEWEST)):
        venv = make(tmp_path / f"{n}")
        pip("uv", venv, "install", "-r", requirements, UVICORN_USR1_VERSION=release)
        assert installed(venv) == release


WITH_3_11 = pytest.mark.skipif((3, 11) not in environments.pythons(), reason="Python 3.11 is not at hand")
PROJECT = """
[project]
name = "locked"
version = "1"
requires-python = ">=3.11,<3.12"
dependencies = [{dependencies}]
"""


@WITH_3_11
@pytest.mark.full
def test_locked_by_uv(clone: Path, tmp_path: Path) -> None:
    """A setting in the project binds; a variable does not, but whoever says --locked is told."""

    def uv(path: Path, *arguments: str, **how: Any) -> str:
        # With a cache of its own: uv keeps what it has built by directory, whatever the settings were
        settings = {"UV_CACHE_DIR": str(path / "cache"), "UV_PYTHON": str(environments.pythons()[(3, 11)])}
        return output(environments.UV, *arguments, cwd=path, **settings, **how)

    bound, loose = tmp_path / "bound", tmp_path / "loose"
    setting, chosen = 'config-settings-package.uvicorn.version = "0.34.2"', {"UVICORN_USR1_VERSION": "0.34.2"}
    source = f'[tool.uv]\nsources.uvicorn = {{ path = "{clone}/vendor/uvicorn" }}\n'
    for path, text, variables in (bound, setting, {}), (loose, "", chosen):
        path.mkdir()
        (path / "pyproject.toml").write_text(PROJECT.format(dependencies='"uvicorn"') + source + text)
        uv(path, "lock", **variables)
        assert f'"{version("uvicorn", "0.34.2")}"' in (path / "uv.lock").read_text()
    for option in ("--frozen", "--locked"):
        uv(bound, "sync", option)
        assert installed(bound / ".venv") == "0.34.2"
    assert "needs to be updated" in uv(loose, "sync", "--locked", status=1)
    assert not list(loose.glob(".venv/lib/python3.*/site-packages/uvicorn-*"))


#: Of that time, with a project that needs no index; the commands that lock it, and install what is locked.
LOCKERS = {
    "pdm": ("[tool.pdm]\ndistribution = false", ["lock"], ["install", "--frozen-lockfile"]),
    "poetry": ("[tool.poetry]\npackage-mode = false", ["lock"], ["install"]),
    "pipenv": ("", ["lock"], ["sync"]),
}


@WITH_3_11
@pytest.mark.full
@pytest.mark.parametrize("locker", LOCKERS)
def test_locked_by_others(locker: str, wheels: Path, tmp_path: Path) -> None:
    tool = environments.cached((3, 11), locker, "--exclude-newer=2025-06-01")
    [fork] = wheels.glob(f"uvicorn-{NEWEST}+*.whl")
    output(sys.executable, "-m", "pip", "download", "-d", tmp_path, "click", "h11")
    files = {"uvicorn": fork, **{file.name.split("-")[0]: file for file in tmp_path.glob("*.whl")}}
    dependencies = ", ".join(f'"{name} @ {file.as_uri()}"' for name, file in files.items())
    packages = "".join(f'{name} = {{file = "{file.as_uri()}"}}\n' for name, file in files.items())
    text, *commands = LOCKERS[locker]
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(dependencies=dependencies) + text)
    (tmp_path / "Pipfile").write_text(f"[packages]\n{packages}")  # Which only pipenv reads
    settings = {"PIPENV_VENV_IN_PROJECT": "1", "POETRY_VIRTUALENVS_IN_PROJECT": "1", "PDM_CHECK_UPDATE": "0"}
    for command in commands:
        output(tool.path / "bin" / locker, *command, cwd=tmp_path, **settings)
    assert installed(tmp_path / ".venv") == NEWEST
