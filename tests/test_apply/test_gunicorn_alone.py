"""An environment with Gunicorn and no uvicorn, as those who run Flask or Django have: it is proved, too."""

import re
from pathlib import Path

import environments
import pytest
from environments import Environment
from properties import run as properties
from test_gunicorn.conftest import NEWEST
from usr1.apply import apply


@pytest.fixture
def gunicorn() -> Environment:
    return environments.cached(list(environments.pythons())[-1], f"gunicorn=={NEWEST}")


@pytest.mark.full
def test_pristine(gunicorn: Environment) -> None:
    status, output = properties.run(gunicorn.path, "--tb=no", "-rN", test="test_customised.py::test_root_logger")
    assert status == 1, output
    assert re.search(r"\d of 2 processes still wrote to a rotated root\.log", output), output


@pytest.mark.full
@pytest.mark.parametrize("release", ["20.1.0", NEWEST])
def test_apply(release: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Unpatched, some promises are broken; patched, all hold, under each worker class that is there."""
    python = environments.pythons()
    version = list(python)[-1] if release == NEWEST else (3, 8)
    packages = [f"gunicorn=={release}", "gevent", "packaging", "setuptools<81"]
    environment = environments.make(tmp_path / "venv", version, *packages)
    assert apply.main(["--tests-only", "--no-figures", str(environment.path)]) == 1
    assert "broken here: a rotation at a bad moment" in capfd.readouterr().out
    assert apply.main(["--verbose", str(environment.path)]) == 0
    said = capfd.readouterr().out
    assert "promises hold here" in said
    for worker_class in ("SyncWorker", "ThreadWorker", "GeventWorker"):
        assert f"{worker_class}]" in said
