"""What the patches promise holds with the module on published releases, and the bug report's server loses nothing."""

import os
from collections import Counter
from pathlib import Path
from typing import Callable

import pytest
import test_report
from environments import Environment
from properties import run as properties

from test_module.conftest import PUBLISHED, SETTINGS, put

BLOCKED = "test_blocked_loop and ASGIWorker"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.full
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_properties_hold(name: str, copy: Callable[[str], Environment]) -> None:
    environment = copy(name)
    put(environment)
    status, output = properties.run(environment.path, "-k", f"not ({BLOCKED})")
    assert status == 0, output


@pytest.mark.full
@pytest.mark.parametrize("module", ["gunicorn_usr1", ""])
def test_a_blocked_loop_of_asgi_loses_lines_as_published(
    module: str, copy: Callable[[str], Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has the signal, which the hook leaves to it."""
    environment = copy("gunicorn 27.0.1")
    put(environment)
    monkeypatch.setenv("USR1_SETTINGS", module)
    status, output = properties.run(environment.path, "-k", BLOCKED, test="test_serving.py")
    assert status == 1 and "lines lost while the application blocked its event loop" in output, output


@pytest.mark.parametrize("name", ["uvicorn 0.13.1", "uvicorn 0.18.3", "uvicorn 0.54.0", "gunicorn 27.0.1"])
def test_a_property_holds(name: str, copy: Callable[[str], Environment]) -> None:
    """One of those that each of these breaks as published: tests/test_combinations.py, tests/test_gunicorn."""
    environment = copy(name)
    put(environment)
    status, output = properties.run(environment.path, test="test_boot.py")
    assert status == 0, output


def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but the file in the server's folder and one option more."""
    environment = test_report.make(tmp_path / "venv")
    put(environment)
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--config python:gunicorn_usr1")
    lines = test_report.run(environment, tmp_path / "report")
    assert lines == {name: Counter(range(1, 21)) for name in lines}
    assert os.environ["GUNICORN_CMD_ARGS"]
