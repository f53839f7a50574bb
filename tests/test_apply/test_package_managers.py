"""What pip and uv make of a patched environment: that it is one of theirs."""

import sys
from pathlib import Path
from typing import Callable

import environments
import pytest
from usr1.apply import apply
from usr1.apply.environment import Environment, find

from test_apply import trees

REQUIREMENT = f"uvicorn=={trees.NEWEST}"


def run(*command: object) -> str:
    answer = environments.run(*command)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


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
    by_pip = (environment.path / "bin" / "pip").exists()
    assert command.startswith(f"  do:       {environment.path}/bin/pip install " if by_pip else "  do:       uv pip ")
    run("bash", "-c", command.replace("  do: ", "").partition(", then run this again")[0])
    assert apply.main(["--check", str(environment.path)]) == 1
    assert apply.main(["--revert", str(environment.path)]) == 0
    now = trees.snapshot(environment.site_packages)
    assert {name for name in {*now, *before} if now.get(name) != before.get(name)} <= notes(environment)


def notes(environment: Environment) -> set[str]:
    """What the two note of how a distribution came to be there."""
    names = ("INSTALLER", "REQUESTED", "RECORD", "uv_cache.json")
    return {f"uvicorn-{trees.NEWEST}.dist-info/{name}" for name in names}


def made_by_pip(path: Path) -> "tuple[Environment, Callable[..., str]]":
    """In an environment made by venv --copies, with bytecode in RECORD."""
    run(sys.executable, "-m", "venv", "--copies", path)
    pip = [path / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", REQUIREMENT, "gunicorn")
    return find(path), lambda command, *arguments: run(*pip, command, *arguments)


def made_by_uv(path: Path) -> "tuple[Environment, Callable[..., str]]":
    environment = find(environments.make(path, sys.version_info[:2], REQUIREMENT, "gunicorn").path)
    uv = [environments.UV, "pip"]
    return environment, lambda command, *arguments: run(*uv, command, "--python", environment.python, *arguments)


@pytest.mark.parametrize("make", [made_by_pip, made_by_uv])
def test_it_is_one_of_theirs(
    make: Callable[[Path], "tuple[Environment, Callable[..., str]]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A hard link to uv's cache has the owner and mode of the file there, which may be anybody's.
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    environment, installer = make(tmp_path / "venv")
    check_reinstall(environment, capsys)
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    installer("check")
    assert REQUIREMENT in installer("freeze")
    one = trees.only(environment)
    if make is made_by_pip:
        assert b"uvicorn/__pycache__/workers." in one.record.read_bytes()
        assert "uvicorn/workers.py" in installer("show", "--files", "uvicorn")
    assert trees.bytecode(environment, one) == []
    installer("uninstall", *(["--yes"] if make is made_by_pip else []), "uvicorn")
    assert [path for path in environment.path.rglob("*") if "uvicorn" in path.name] == []
