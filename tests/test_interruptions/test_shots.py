"""SIGUSR1 at every bytecode boundary of a worker's life, one by one, and at every one of its handler, twice."""

from pathlib import Path

import environments
import pytest

from test_interruptions.run import WORKERS, Outcome, Run, environment

NEWEST = environments.uvicorn(environments.COMBINATIONS[-1])


def sweep(run: Run) -> Outcome:
    """Worker after worker sends signals where there was none yet, until no place is left."""
    with run:
        before = -1
        while before < len(run.boundaries()):
            before = len(run.boundaries())
            run.life()
            places = run.boundaries()[before:]
            assert not run.unanswered, f"{run.unanswered} after a signal at one of {places}"
            assert run.statuses()[-1] == 0, f"the worker ended of a signal at one of {places}"
        ended = run.statuses()
        outcome = run.stop()
    print(f"{len(outcome.boundaries)} signals in {len(ended)} workers")
    assert set(ended) == {0}
    return outcome


@pytest.mark.full
@pytest.mark.parametrize("loop", WORKERS)
def test_a_signal_at_any_boundary_is_honoured(loop: str, tmp_path: Path) -> None:
    run = Run(tmp_path, environment(NEWEST), loop, "each", 20, "boot loading serving closing")
    assert sweep(run).complaints() == []


@pytest.mark.full
@pytest.mark.parametrize("loop", WORKERS)
def test_a_signal_in_the_handler_is_honoured(loop: str, tmp_path: Path) -> None:
    """Whether the handler interrupts a log write, or the application."""
    scope = "/logging/__init__.py:flush$|/application.py:app$"
    outcome = sweep(Run(tmp_path, environment(NEWEST), loop, "nested", 20, scope=scope))
    assert outcome.complaints() == []
    contexts = {(place.split()[0], place.split()[-1]) for place in outcome.boundaries}
    assert {("serving", "flush"), ("serving", "app")} <= contexts
