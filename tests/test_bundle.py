"""scripts/bundle.sh: patching where there is no package index."""

import os
from pathlib import Path

import environments
import pytest
from environments import output
from test_apply import conftest as trees

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "bundle.sh"


@pytest.mark.full
def test_where_there_is_no_index(tmp_path: Path) -> None:
    """Of two Pythons, in a place without a network, with uv on the PATH."""
    versions = (3, 7), (3, 11), (3, 8)
    if not set(versions) <= set(environments.pythons()):
        pytest.skip("Python 3.7, 3.8 and 3.11 are not all at hand")
    other, *pythons = (environments.pythons()[version] for version in versions)
    output(SCRIPT, tmp_path / "bundle.tar.gz", *pythons)
    away = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1"}
    offline = ["unshare", "--net"] if os.geteuid() == 0 else []
    for python in pythons:
        place = tmp_path / python.name
        place.mkdir()
        output("tar", "-xzf", tmp_path / "bundle.tar.gz", "-C", place)
        apply = place / "uvicorn-usr1" / "scripts" / "apply.sh"
        venv = trees.light(place / "venv", trees.source()).path
        output(*offline, apply, "--no-tests", venv, **away, PYTHON=str(python))
        output(*offline, apply, "--revert", venv, **away, PYTHON=str(python))
    # Only with the last one, as the properties take their time
    served = environments.cached((3, 11), *environments.packages(trees.NEWEST)).path
    tested = output(*offline, apply, "--tests-only", served, status=1, **away, PYTHON=str(python))
    assert "are broken here" in tested
    refused = output(*offline, apply, "--tests-only", venv, status=2, **away, PYTHON=str(other))
    assert "name it to scripts/bundle.sh" in refused


def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    said = output(SCRIPT, tmp_path / "bundle.tar.gz", "/bin/false", status=2)
    assert "cannot make an environment with /bin/false" in said
    assert list(tmp_path.iterdir()) == []
