"""What pip and uv make of a patched environment: that it is one of theirs."""

import subprocess
import sys
from pathlib import Path
from typing import List

import environments
import pytest
from usr1.apply import apply
from usr1.apply.environment import Environment, find

from test_apply import trees

REQUIREMENT = f"uvicorn=={trees.NEWEST}"


def run(*command: object) -> str:
    answer = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def uvicorn_files(environment: Environment) -> List[Path]:
    return [path for path in environment.path.rglob("*") if "uvicorn" in path.name]


def check_reinstall(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """What is to be done says how to bring the published files back; then --check says so."""
    before = trees.snapshot(environment.site_packages)
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert trees.disagreements(environment) == []
    assert apply.main(["--check", str(environment.path)]) == 0
    file = environment.site_packages / "uvicorn" / "workers.py"
    file.write_text("changed = True\n")
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    [command] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  do: ")]
    run("bash", "-c", command.replace("  do: ", "").partition(", then run this again")[0])
    assert apply.main(["--check", str(environment.path)]) == 1
    assert apply.main(["--revert", str(environment.path)]) == 0
    now = trees.snapshot(environment.site_packages)
    assert {name for name in {*now, *before} if now.get(name) != before.get(name)} <= notes(environment)


def notes(environment: Environment) -> set[str]:
    """What the two note of how a distribution came to be there."""
    names = ("INSTALLER", "REQUESTED", "RECORD", "uv_cache.json")
    return {f"uvicorn-{trees.NEWEST}.dist-info/{name}" for name in names}


def test_pip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In an environment made by venv --copies and pip, with bytecode in RECORD."""
    run(sys.executable, "-m", "venv", "--copies", tmp_path / "venv")
    environment = find(tmp_path / "venv")
    pip = [environment.python, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", REQUIREMENT, "gunicorn")
    check_reinstall(environment, capsys)
    pristine = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert apply.main(["--revert", str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == pristine
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert "No broken requirements" in run(*pip, "check")
    one = trees.only(environment)
    assert b"uvicorn/__pycache__/workers." in one.record.read_bytes() and trees.bytecode(environment, one) == []
    assert "uvicorn/workers.py" in run(*pip, "show", "--files", "uvicorn")
    run(*pip, "uninstall", "--yes", "uvicorn")
    assert uvicorn_files(environment) == []


def test_uv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = environments.make(tmp_path / "venv", sys.version_info[:2], REQUIREMENT, "gunicorn")
    environment = find(made.path)

    def uv(*arguments: str) -> List[object]:
        return [environments.UV, "pip", *arguments, "--python", environment.python]

    check_reinstall(environment, capsys)
    one = trees.only(environment)
    with one.record.open("a") as record:  # As pip does
        record.write("uvicorn/__pycache__/workers.cpython-311.pyc,,\n")
    pristine = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert apply.main(["--revert", str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == pristine
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    run(*uv("check"))
    assert REQUIREMENT in run(*uv("freeze"))
    run(*uv("uninstall", "uvicorn"))
    assert uvicorn_files(environment) == []
