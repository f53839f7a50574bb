"""Every line that a patch adds is run by the tests, on every variant."""

from pathlib import Path

import environments
import pytest

from mutations import mutants
from mutations.recording import recorded, recording
from mutations.test_mutations import Laboratory

CHECKS = ("before init_signals", "while the application loads", "test_failing_reopening", "test_forked_process")


@pytest.mark.parametrize("release", environments.combinations("0.13.2", "0.28.1", "0.54.0"))
def test_every_added_line_is_run(release: str, tmp_path: Path) -> None:
    record = tmp_path / "ran"
    with Laboratory(release, tmp_path) as laboratory:
        lines = mutants.statement_lines(laboratory.patch, laboratory.patched)
        source = recording(laboratory.patched, lines, record)
        failing = [check for check in CHECKS if not laboratory.survives(source, check)]
    assert failing == []
    assert sorted(lines - recorded(record)) == []
