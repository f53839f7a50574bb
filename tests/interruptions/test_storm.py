"""SIGUSR1 at every bytecode boundary of a worker's life, in one run."""

import itertools
import signal
from pathlib import Path
from typing import Iterator

import environments
import pytest
from environments import Environment

from interruptions.run import WORKERS, Outcome, Run, environment

REQUESTS = 5


def storm(home: Path, target: Environment, loop: str) -> Outcome:
    with Run(home, target, loop, "all", REQUESTS) as run:
        run.life()
        return run.stop()


def cases() -> Iterator:
    """By default one loop for each release, by turns, and both for the newest."""
    for (n, release), (m, loop) in itertools.product(enumerate(environments.COMBINATIONS), enumerate(WORKERS)):
        by_default = (n + m) % 2 == 0 or release == environments.COMBINATIONS[-1]
        yield pytest.param(release, loop, marks=[] if by_default else [pytest.mark.full])


@pytest.mark.parametrize(("release", "loop"), cases())
def test_a_patched_worker_withstands_a_signal_at_every_boundary(release: str, loop: str, tmp_path: Path) -> None:
    outcome = storm(tmp_path, environment(release), loop)
    assert outcome.complaints() == []
    assert outcome.statuses == [0, 15 if release >= "0.29" else 0]
    assert {line.split()[0] for line in outcome.boundaries} == {"boot", "loading", "serving", "closing"}


def test_single_shots_find_the_reentrant_write_of_pristine_0_54_0(tmp_path: Path) -> None:
    target = environment("0.54.0", patched=False)
    with Run(tmp_path, target, "asyncio", "one", 700, phases="serving", scope="/logging/") as run:
        run.life()
        outcome = run.stop()
    assert "RuntimeError: reentrant call inside" in outcome.errors


def test_it_finds_that_pristine_0_18_3_is_killed(tmp_path: Path) -> None:
    outcome = storm(tmp_path, environment("0.18.3", patched=False), "asyncio")
    assert signal.SIGUSR1 in outcome.statuses


def test_it_finds_that_pristine_0_13_2_swallows_the_signal(tmp_path: Path) -> None:
    outcome = storm(tmp_path, environment("0.13.2", patched=False), "asyncio")
    assert any(complaint.startswith("not reopened") for complaint in outcome.complaints())
