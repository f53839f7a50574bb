"""SIGUSR1 at every bytecode boundary of a worker's life, one by one, and at every one of its handler, twice."""

from pathlib import Path

import environments
import pytest

from test_interruptions.run import WORKERS, Outcome, Run, environment

NEWEST = environments.uvicorn(environments.COMBINATIONS[-1])
SOME = 200  # signals, where not all are sent


def sweep(run: Run, full: bool) -> Outcome:
    """Worker after worker sends signals where there was none yet, until no place is left, or until there were some."""
    with run:
        before = -1
        while before < len(run.boundaries()) and (full or before < SOME):
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


@pytest.mark.parametrize("loop", WORKERS)
def test_a_signal_at_any_boundary_is_honoured(loop: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    full = pytestconfig.getoption("--full")
    phases = "boot loading serving closing" if full else "boot serving"
    assert sweep(Run(tmp_path, environment(NEWEST), loop, "each", 20 if full else 2, phases), full).complaints() == []


@pytest.mark.full
@pytest.mark.parametrize("loop", WORKERS)
def test_a_signal_in_the_handler_is_honoured(loop: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Whether the handler interrupts a log write, or the application."""
    scope = "/logging/__init__.py:flush$|/application.py:app$"
    run = Run(tmp_path, environment(NEWEST), loop, "nested", 20, scope=scope)
    outcome = sweep(run, pytestconfig.getoption("--full"))
    assert outcome.complaints() == []
    contexts = {(place.split()[0], place.split()[-1]) for place in outcome.boundaries}
    assert {("serving", "flush"), ("serving", "app")} <= contexts
