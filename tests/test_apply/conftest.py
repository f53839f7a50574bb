from pathlib import Path
from typing import Iterator

import environments
import pytest
from usr1.apply import proof
from usr1.apply.environment import Environment

from test_apply import trees


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The newest uvicorn, pristine, with bytecode listed in RECORD."""
    return trees.light(tmp_path / "venv", trees.source())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> trees.Run:
    return trees.Run(capsys)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where anybody may look, unlike pytest's own directories."""
    with environments.open_directory() as directory:
        yield directory


@pytest.fixture
def root(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the properties that are run are, in the place of ours, which have tests of their own."""
    monkeypatch.setattr(proof, "ROOT", place / "root")
    return place / "root"
