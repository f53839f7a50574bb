from pathlib import Path

import pytest
from usr1.environment import Environment

from apply import trees


@pytest.fixture
def target(tmp_path: Path) -> Environment:
    """The newest uvicorn, pristine, with bytecode listed in RECORD."""
    return trees.light(tmp_path / "venv", trees.source(), bytecode=True)
