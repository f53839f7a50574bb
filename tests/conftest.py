from pathlib import Path

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
    group.addoption("--full", action="store_true", help="run the long sweeps too: an hour instead of ten minutes")
