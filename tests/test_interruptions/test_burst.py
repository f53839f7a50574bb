"""Ten thousand signals at once, in a log write and elsewhere."""

from pathlib import Path

import environments
import pytest

from test_interruptions.run import Run, environment

NEWEST = environments.uvicorn(environments.COMBINATIONS[-1])
BURSTS = 20  # at least


@pytest.mark.full
@pytest.mark.parametrize("worker", ["CountingOnAsyncio", "CountingOnUvloop"])
def test_a_burst_is_handled(worker: str, tmp_path: Path) -> None:
    """Nothing is raised into what was interrupted: the handlers are not nested deeply enough for a RecursionError."""
    worker, scope = f"customised_worker.{worker}", "/logging/__init__.py:flush$|/application.py:app$"
    run = Run(tmp_path, environment(NEWEST), worker, "burst", 40, "serving", scope)
    with run:
        run.life()
        outcome = run.stop()
    assert outcome.complaints() == []
    [count] = [report for report in outcome.reports if "counted" in report]
    assert count["fired"] >= BURSTS
    assert count["handled"] >= 10 * count["fired"], "the signals come too late"
    assert count["deepest"] < 200, "Python's limit is 1000"
