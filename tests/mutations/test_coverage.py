"""Every line that a patch adds is run by the tests, on every variant."""

from pathlib import Path

import environments
import pytest
from environments import Workers

from mutations import mutants
from mutations.recording import recorded, recording
from mutations.test_mutations import Laboratory

CHECKS = (
    "before init_signals",
    "while the application loads",
    "in the emission, handled as reported",
    "test_failing_reopening",
    "test_forked_process",
)

BY_DEFAULT = ("uvicorn 0.13.2", "uvicorn 0.28.1", "uvicorn 0.54.0", "uvicorn-worker 0.4.0 with uvicorn 0.54.0")


@pytest.mark.parametrize("workers", environments.variants(*BY_DEFAULT))
def test_every_added_line_is_run(workers: Workers, tmp_path: Path) -> None:
    record = tmp_path / "ran"
    with Laboratory(workers, tmp_path) as laboratory:
        lines = mutants.statement_lines(laboratory.patch, laboratory.patched, laboratory.unused)
        source = recording(laboratory.patched, lines, record)
        failing = [check for check in CHECKS if not laboratory.survives(source, check)]
    assert failing == []
    assert sorted(lines - recorded(record)) == []
