"""Ten thousand signals while the handler waits for its thread, which waits for the log write that it interrupted."""

from pathlib import Path

import environments
import pytest

from interruptions.run import Run, environment

NEWEST = environments.uvicorn(environments.COMBINATIONS[-1])
BURSTS = 20  # at least


@pytest.mark.parametrize("worker", ["CountingOnAsyncio", "CountingOnUvloop"])
def test_a_burst_is_handled(worker: str, tmp_path: Path) -> None:
    """Nothing is raised into what was interrupted: no RecursionError either, with a third of Python's own limit."""
    worker, writing = f"customised_worker.{worker}", "/logging/__init__.py:flush$"
    run = Run(tmp_path, environment(NEWEST), worker, "burst", 20, "serving", writing)
    with run:
        run.life()
        outcome = run.stop()
    assert outcome.complaints() == []
    [count] = [report for report in outcome.reports if "counted" in report]
    print(count)
    assert count["fired"] >= BURSTS
    assert count["handled"] >= 10 * count["fired"], "the signals did not come while the handler waited"
