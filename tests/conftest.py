from pathlib import Path
from typing import List

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("uvicorn-usr1")
    group.addoption("--target", type=Path, metavar="VENV", help="run the signal properties against this environment")
    group.addoption(
        "--effort",
        choices=("quick", "default", "thorough"),
        default="default",
        help="how many examples the signal properties draw (default: under a minute of them)",
    )
    group.addoption("--full", action="store_true", help="run the long sweeps too: hours instead of ten minutes")


@pytest.fixture(autouse=True)
def unmeasured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that a test starts is not measured, which takes a tenth of a second, unless the test is marked."""
    if not request.node.get_closest_marker("measured"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    long = [] if config.getoption("--full") else [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]
