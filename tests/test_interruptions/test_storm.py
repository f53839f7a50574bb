"""SIGUSR1 at every bytecode boundary of a worker's life, in one run."""

import itertools
import signal
from pathlib import Path
from typing import Any, Iterator

import environments
import pytest
from environments import Environment, Workers
from packaging.version import Version

from test_interruptions.run import WORKERS, Outcome, Run, environment

REQUESTS = 5


def storm(home: Path, target: Environment, loop: str) -> Outcome:
    with Run(home, target, loop, "storm", REQUESTS) as run:
        run.life()
        return run.stop()


NEWEST = environments.COMBINATIONS[-1]
BY_DEFAULT = {(f"uvicorn {NEWEST}", "uvloop")}


def cases() -> Iterator[Any]:
    for workers, loop in itertools.product(environments.VARIANTS, WORKERS):
        marks = [] if (str(workers), loop) in BY_DEFAULT else [pytest.mark.full]
        yield pytest.param(workers, loop, id=f"{workers}-{loop}", marks=marks)


@pytest.mark.parametrize(("workers", "loop"), cases())
def test_a_patched_worker_withstands_a_signal_at_every_boundary(workers: Workers, loop: str, tmp_path: Path) -> None:
    outcome = storm(tmp_path, environment(workers), loop)
    assert outcome.complaints() == []
    assert outcome.statuses == [0, 15 if Version(workers.uvicorn) >= Version("0.29.0") else 0]
    assert {line.split()[0] for line in outcome.boundaries} == {"boot", "loading", "serving", "closing"}


@pytest.mark.full
def test_single_shots_find_the_reentrant_write_of_pristine_0_54_0(tmp_path: Path) -> None:
    target = environment(environments.uvicorn(NEWEST), patched=False)
    with Run(tmp_path, target, "asyncio", "one", 700, phases="serving", scope="/logging/") as run:
        run.life()
        outcome = run.stop()
    assert "RuntimeError: reentrant call inside" in outcome.errors


def test_it_finds_that_pristine_0_18_3_is_killed(tmp_path: Path) -> None:
    outcome = storm(tmp_path, environment(environments.uvicorn("0.18.3"), patched=False), "asyncio")
    assert signal.SIGUSR1 in outcome.statuses


@pytest.mark.full
def test_it_finds_that_pristine_0_13_2_swallows_the_signal(tmp_path: Path) -> None:
    outcome = storm(tmp_path, environment(environments.uvicorn("0.13.2"), patched=False), "asyncio")
    assert any(complaint.startswith("not reopened") for complaint in outcome.complaints())
