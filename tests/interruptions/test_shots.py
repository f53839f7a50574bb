"""SIGUSR1 at every bytecode boundary of a worker's life, one by one."""

from pathlib import Path

import environments
import pytest

from interruptions.run import WORKERS, Run, environment

#: How many requests each worker serves: a signal in each, or, where they do not matter, in each other phase.
REQUESTS = {"serving": 60, "boot loading closing": 2}
LIVES = 3


@pytest.mark.parametrize("phases", REQUESTS)
@pytest.mark.parametrize("loop", WORKERS)
def test_a_signal_at_any_boundary_is_honoured(
    loop: str, phases: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """
    Worker after worker sends it at the next boundaries that had none, until none is left.

    Only with --full to the end; otherwise a few workers show that it goes.
    """
    lives = 20_000 if pytestconfig.getoption("--full") else LIVES
    requests = REQUESTS[phases]
    with Run(tmp_path, environment(environments.uvicorn("0.54.0")), loop, "one", requests, phases) as run:
        for _ in range(lives):
            before = run.fired()
            run.life()
            boundaries = run.boundaries()[-requests - 2 :]
            assert not run.unanswered, f"{run.unanswered} after a signal at one of {boundaries}"
            assert run.statuses()[-1] == 0, f"the worker ended of a signal at one of {boundaries}"
            if run.fired() == before:
                break
        ended = run.statuses()
        outcome = run.stop()
    print(f"{len(outcome.boundaries)} signals in {len(ended)} workers")
    assert outcome.complaints() == []
    assert set(ended) == {0}
