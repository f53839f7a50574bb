"""scripts/bundle.sh: patching where there is no package index."""

import os
import subprocess
from pathlib import Path

import environments
import pytest
from environments import run
from test_apply import trees

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "bundle.sh"


@pytest.mark.full
def test_where_there_is_no_index(tmp_path: Path) -> None:
    """Of two Pythons, in a place without a network, with uv on the PATH."""
    versions = (3, 7), (3, 11), (3, 8)
    if not set(versions) <= set(environments.pythons()):
        pytest.skip("Python 3.7, 3.8 and 3.11 are not all at hand")
    other, *pythons = (environments.pythons()[version] for version in versions)
    made = run(SCRIPT, tmp_path / "bundle.tar.gz", *pythons)
    assert made.returncode == 0, made.stdout
    away = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1"}
    offline = ["unshare", "--net"] if os.geteuid() == 0 else []
    for python in pythons:
        place = tmp_path / python.name
        place.mkdir()
        subprocess.run(["tar", "-xzf", tmp_path / "bundle.tar.gz", "-C", place], check=True)
        apply = place / "uvicorn-usr1" / "scripts" / "apply.sh"
        venv = trees.light(place / "venv", trees.source()).path
        patched = run(*offline, apply, "--no-tests", venv, **away, PYTHON=str(python))
        assert patched.returncode == 0, patched.stdout
        assert run(*offline, apply, "--revert", venv, **away, PYTHON=str(python)).returncode == 0
    # Only with the last one, as the properties take their time
    served = environments.cached((3, 11), *environments.packages(trees.NEWEST)).path
    tested = run(*offline, apply, "--tests-only", served, **away, PYTHON=str(python))
    assert tested.returncode == 1, tested.stdout
    assert "are broken here" in tested.stdout
    refused = run(*offline, apply, "--tests-only", venv, **away, PYTHON=str(other))
    assert refused.returncode == 2
    assert "name it to scripts/bundle.sh" in refused.stdout


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_without_a_file(arguments: "list[str]") -> None:
    answer = run(SCRIPT, *arguments)
    assert answer.returncode == 2 and answer.stdout.startswith("bundle.sh: expected the name of a file to make, found ")
    assert run(SCRIPT, "--help").stdout.startswith("scripts/bundle.sh FILE.tar.gz [PYTHON ...]")


def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    answer = run(SCRIPT, tmp_path / "bundle.tar.gz", "/bin/false")
    assert answer.returncode == 2
    assert "cannot make an environment with /bin/false" in answer.stdout
    assert list(tmp_path.iterdir()) == []
