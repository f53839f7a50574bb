from pathlib import Path

import pytest
from usr1.apply.environment import Environment

from test_apply import trees


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The newest uvicorn, pristine, with bytecode listed in RECORD."""
    return trees.light(tmp_path / "venv", trees.source(), bytecode=True)
