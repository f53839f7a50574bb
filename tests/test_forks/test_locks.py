"""Projects that lock what they install: which ways to choose a release bind."""

import subprocess
import sys
from pathlib import Path

import environments
import pytest
from usr1.forks import fork

PROJECT = """
[project]
name = "locked"
version = "1"
requires-python = ">=3.10"
dependencies = ["uvicorn"]
[tool.uv]
sources.uvicorn = {{ path = "{vendor}" }}
"""
SETTING = 'config-settings-package.uvicorn.version = "0.34.2"\n'


pytestmark = pytest.mark.skipif((3, 11) not in environments.pythons(), reason="Python 3.11 is not at hand")


class Project:
    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        path.mkdir()
        (path / "pyproject.toml").write_text(text)

    def uv(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        # With a cache of its own: uv keeps what it has built by directory, whatever the settings were
        settings = {"UV_CACHE_DIR": str(self.path / "cache"), "UV_PYTHON": str(environments.pythons()[(3, 11)])}
        return environments.run(environments.UV, *arguments, cwd=self.path, **settings, **variables)

    def installed(self) -> str:
        [info] = self.path.glob(".venv/lib/python3.*/site-packages/uvicorn-*.dist-info")
        return info.name[len("uvicorn-") : -len(".dist-info")]


@pytest.mark.full
def test_of_uv(clone: Path, tmp_path: Path) -> None:
    """A setting in the project binds; a variable does not, but whoever says --locked is told."""
    version = f"0.34.2+usr1.{fork.find('uvicorn', '0.34.2').revision}"
    text = PROJECT.format(vendor=clone / "vendor" / "uvicorn")
    bound = Project(tmp_path / "bound", text + SETTING)
    assert bound.uv("lock").returncode == 0
    assert f'"{version}"' in (bound.path / "uv.lock").read_text()
    for option in ("--frozen", "--locked"):
        answer = bound.uv("sync", option)
        assert answer.returncode == 0 and bound.installed() == version, answer.stdout

    loose = Project(tmp_path / "loose", text)
    assert loose.uv("lock", UVICORN_USR1_VERSION="0.34.2").returncode == 0
    assert f'"{version}"' in (loose.path / "uv.lock").read_text()
    answer = loose.uv("sync", "--locked")
    assert answer.returncode != 0 and "needs to be updated" in answer.stdout
    assert not list(loose.path.glob(".venv/lib/python3.*/site-packages/uvicorn-*"))


#: Of that time, with a project that needs no index; the commands that lock it, and install what is locked.
LOCKERS = {
    "pdm": ("[project]\n{project}\n[tool.pdm]\ndistribution = false", ["lock"], ["install", "--frozen-lockfile"]),
    "poetry": ("[project]\n{project}\n[tool.poetry]\npackage-mode = false", ["lock"], ["install"]),
    "pipenv": ("[packages]\n{packages}", ["lock"], ["sync"]),
}


@pytest.mark.full
@pytest.mark.parametrize("locker", LOCKERS)
def test_of_others(locker: str, wheels: Path, tmp_path: Path) -> None:
    """A wheel binds."""
    path = tmp_path / "project"
    path.mkdir()
    tool = environments.cached((3, 11), locker, exclude_newer="2025-06-01")
    [fork] = wheels.glob("uvicorn-0.54.0+*.whl")
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", path, "click", "h11"], check=True)
    files = {"uvicorn": fork, **{file.name.split("-")[0]: file for file in path.glob("*.whl")}}
    project = 'name = "locked"\nversion = "1"\nrequires-python = ">=3.11,<3.12"\n' + "dependencies = [{}]".format(
        ", ".join(f'"{name} @ {file.as_uri()}"' for name, file in files.items())
    )
    packages = "".join(f'{name} = {{file = "{file.as_uri()}"}}\n' for name, file in files.items())
    text, lock, install = LOCKERS[locker]
    written = path / ("Pipfile" if locker == "pipenv" else "pyproject.toml")
    written.write_text(text.format(project=project, packages=packages))
    settings = {"PIPENV_VENV_IN_PROJECT": "1", "POETRY_VIRTUALENVS_IN_PROJECT": "1", "PDM_CHECK_UPDATE": "0"}
    for command in (lock, install):
        answer = environments.run(tool.path / "bin" / locker, *command, cwd=path, **settings)
        assert answer.returncode == 0, answer.stdout
    [info] = path.glob(".venv/lib/python3.*/site-packages/uvicorn-*.dist-info")
    assert info.name == f"{fork.name.split('-py3')[0]}.dist-info"
