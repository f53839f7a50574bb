"""Whole runs, with the properties: with one old Python on the machine, on PyPy, and with Gunicorn and no uvicorn."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import List, Tuple

import environments
import pytest
from test_gunicorn.conftest import NEWEST, python
from usr1.apply import apply

from test_apply import trees

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("scripts", "patches", "tests/properties", "tests/conftest.py", "setup.cfg")

#: A release of the time for each Python that the newest tools do not run on.
OLD = {(3, 6): "0.13.4", (3, 7): "0.16.0", (3, 8): "0.30.0"}


def only(python: Path, directory: Path) -> str:
    """A PATH on which this Python is all that could run anything of ours."""
    directory.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            if not program.name.startswith(("python", "pip", "uv")) and not (directory / program.name).exists():
                (directory / program.name).symlink_to(program)
    (directory / python.name).symlink_to(python)
    return str(directory)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """This repository without any tools, as far as apply.sh needs it."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (tmp_path / "clone" / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, tmp_path / "clone" / part)
    return tmp_path / "clone"


@pytest.mark.full
@pytest.mark.parametrize("python", OLD, ids=lambda python: "%d.%d" % python)
def test_one_old_python(python: Tuple[int, int], clone: Path, tmp_path: Path) -> None:
    if python not in environments.pythons():
        pytest.skip(f"no Python {python} is at hand")
    venv = environments.make(tmp_path / "venv", python, *environments.packages(OLD[python])).path
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    # Without a home, where pyenv's Pythons might be, and without a locale that knows more than ASCII
    variables.update(PATH=only(environments.pythons()[python], tmp_path / "bin"), HOME=str(tmp_path), LC_ALL="C")

    def script(*arguments: str) -> Tuple[int, str]:
        command: List[str] = [str(clone / "scripts" / "apply.sh"), *arguments, str(venv)]
        answer = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return answer.returncode, answer.stdout

    before = trees.snapshot(venv)
    assert script("--check")[0] == 1
    assert script("--dry-run")[0] == 0
    status, said = script()
    assert status == 0 and " promises hold here" in said, said
    # Progress is one line on a terminal, and elsewhere one each ten seconds
    said = re.sub(r"^  tests: .* done\n", "", said, flags=re.MULTILINE)
    assert len(said.splitlines()) <= 30 and not re.search(r"NOTSET|\[100%\]|empty parameter", said), said
    status, said = script("--check")
    assert status == 0 and f"uvicorn {OLD[python]}: patched" in said, said
    assert script("--revert")[0] == 0
    assert trees.snapshot(venv) == before
    for tools in clone.glob(".tools-*"):
        assert (tools / "lib" / f"python{python[0]}.{python[1]}").is_dir()


@pytest.mark.full
@pytest.mark.parametrize("release", ["20.1.0", NEWEST])
def test_gunicorn_alone(release: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Unpatched, some promises are broken; patched, all hold, under each worker class that is there."""
    version = list(environments.pythons())[-1] if release == NEWEST else (3, 8)
    packages = [f"gunicorn=={release}", "gevent", "packaging", "setuptools<81"]
    environment = environments.make(tmp_path / "venv", version, *packages)
    assert apply.main(["--tests-only", "--no-figures", str(environment.path)]) == 1
    assert "broken here: a rotation" in capfd.readouterr().out
    assert apply.main(["--verbose", str(environment.path)]) == 0
    said = capfd.readouterr().out
    assert "promises hold here" in said
    for worker_class in ("SyncWorker", "ThreadWorker", "GeventWorker"):
        assert f"{worker_class}]" in said


@pytest.mark.full
def test_pypy(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pypy = shutil.which("pypy3")
    if pypy is None:
        pytest.skip("no PyPy is at hand (on Debian: apt install pypy3-venv)")
    subprocess.run([pypy, "-m", "venv", tmp_path / "venv"], check=True)
    packages = ["gunicorn==23.0.0", "uvicorn==0.39.0"]  # The newest for Debian 12's
    subprocess.run([tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", *packages], check=True)
    assert apply.main([str(tmp_path / "venv")]) == 0
    assert "promises hold here" in capfd.readouterr().out


@pytest.mark.full
def test_verdict_within_a_minute(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where most promises are broken, each of which takes its time; on a machine that has nothing else to do."""
    packages = environments.packages("0.18.3", "gunicorn==20.1.0")
    environment = environments.make(tmp_path / "venv", python("20.1.0"), *packages)
    start = time.monotonic()
    assert apply.main(["--tests-only", str(environment.path)]) == 1
    assert time.monotonic() - start < 60
