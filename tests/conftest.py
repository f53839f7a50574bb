"""
Which tests run: by default those that most likely notice what a change breaks, with --full all of them.

A full run goes on where an earlier one of the same files ended: what passed then is not run again. The rest,
for root, is what an ordinary user's run of the same files had to leave out, or shows less of.
"""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import List, Optional

import pytest

ROOT = Path(__file__).resolve().parents[1]
PASSED = ROOT / ".cache" / "passed"

_record: Optional[Path] = None  # Where this run notes what has passed


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("uvicorn-usr1")
    against = "run the signal properties against this environment"
    group.addoption("--environment", type=Path, metavar="VENV", help=against)
    group.addoption(
        "--effort",
        choices=("quick", "default", "thorough"),
        default="default",
        help="how many examples the signal properties draw (default: under a minute of them)",
    )
    group.addoption("--full", action="store_true", help="run the sweeps too, but what has passed with the same files")
    group.addoption("--rest", action="store_true", help="run what is left for root after a run of the same files")


def pytest_configure(config: pytest.Config) -> None:
    global _record
    # With pytest-xdist the process that hands out the tests notes them, and collects none. Properties are noted
    # by no name of the environment that they hold in.
    if not config.getoption("--environment") and not hasattr(config, "workerinput"):
        PASSED.mkdir(parents=True, exist_ok=True)
        _record = _record_of(config)


@pytest.fixture(autouse=True)
def unmeasured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that a test starts is not measured, which takes a tenth of a second, unless the test is marked."""
    if not request.node.get_closest_marker("measured"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def open_clone() -> None:
    """For what root's tests run of this clone as another user."""
    if os.geteuid() == 0 and subprocess.call(["test", "-r", str(ROOT / "setup.cfg")], user="nobody") != 0:
        pytest.skip(f"nobody but root may enter {ROOT}")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    full, record = config.getoption("--full"), _record_of(config)
    # What an earlier run has passed, and this one is to leave out
    done = record.read_text().splitlines() if (full or config.getoption("--rest")) and record.exists() else []

    def wanted(item: pytest.Item) -> bool:
        if full:
            return item.nodeid not in done
        more_as_root = item.get_closest_marker("root") is not None
        return not item.get_closest_marker("full") and (item.nodeid not in done or more_as_root)

    chosen = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    if not full:  # The longest first, or one process ends with them while the others have nothing left
        items.sort(key=lambda item: item.path.name != "test_combinations.py")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and _record is not None:
        with open(_record, "a") as record:
            record.write(f"{report.nodeid}\n")


def _record_of(config: pytest.Config) -> Path:
    """Where it stands which tests have passed with these very files in this repository; with --full some do more."""
    files = sorted(path for pattern in ("[!.]*", "[!.]*/**/*") for path in ROOT.glob(pattern) if path.suffix != ".pyc")
    contents = (path.read_bytes() for path in files if path.is_file())
    fingerprint = hashlib.sha256(b"".join(contents)).hexdigest()
    return PASSED / f"{'full' if config.getoption('--full') else 'default'}-{fingerprint}"
