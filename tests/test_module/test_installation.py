"""Installed, upgraded and removed, by pip and by uv; tests/test_module/test_servers.py has a plain file."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import environments
import pytest
from environments import Environment

from test_module.conftest import VENDOR


def tool(name: str, command: str, environment: Environment, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(environment.python), command]
    uv = [str(environments.UV), "pip", command, "--quiet", "--python", str(environment.python)]
    subprocess.run([*(uv if name == "uv" else pip), *arguments], check=True)


def serves(environment: Environment) -> bool:
    """Whether a worker boots with the module as all that there is of a configuration."""
    options = ["--config", "python:gunicorn_usr1"]
    command = [str(environment.python), "-m", "gunicorn", "--check-config", *options, "os:getcwd"]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("name", ["uv", pytest.param("pip", marks=pytest.mark.full)])
def test_installation(name: str, copy: Callable[[str], Environment], tmp_path: Path) -> None:
    environment, source = copy("gunicorn 27.0.1"), tmp_path / "a folder" / "gunicorn-usr1"
    shutil.copytree(VENDOR, source)
    assert not serves(environment)
    tool(name, "install", environment, str(source))
    [module] = environment.path.glob("lib/python3.*/site-packages/gunicorn_usr1.py")
    assert module.read_text() == (VENDOR / "gunicorn_usr1.py").read_text()
    assert serves(environment)

    project = source / "pyproject.toml"
    project.write_text(re.sub(r'^version = "(\d+)"', 'version = "999"', project.read_text(), flags=re.MULTILINE))
    with open(source / "gunicorn_usr1.py", "a") as newer:
        newer.write("newer = True\n")
    tool(name, "install", environment, str(source))
    assert module.read_text() == (source / "gunicorn_usr1.py").read_text()
    assert [path.name for path in module.parent.glob("gunicorn_usr1-*")] == ["gunicorn_usr1-999.dist-info"]

    tool(name, "uninstall", environment, *([] if name == "uv" else ["--yes"]), "gunicorn-usr1")
    assert list(module.parent.glob("gunicorn_usr1*")) == []
