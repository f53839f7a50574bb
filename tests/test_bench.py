"""scripts/bench.sh: what it refuses; and that what it counts can be other than nothing."""

import subprocess
from pathlib import Path

import pytest
from bench import cells
from bench.subjects import OLD, PATCHED


@pytest.mark.parametrize("arguments", [["--fast"], ["--quick", "--report"], [""] * 2])
def test_wrong_arguments(arguments: "list[str]") -> None:
    script = Path(__file__).parents[1] / "scripts" / "bench.sh"
    answer = subprocess.run([script, *arguments], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("bench.sh: expected nothing, --quick or --report, found ")


@pytest.mark.full
@pytest.mark.parametrize("schedule", cells.SCHEDULES)
def test_losses_are_found(schedule: str) -> None:
    """On a release that swallows the signal, and none where it is patched."""
    before, after = (cells.losses(one, schedule, 4) for one in (OLD[0], PATCHED))
    if schedule not in "bd":  # These read what is still written to, and lose by design, be it little
        assert sum(after["lost"].values()) == after["broken"] == after["dead"] == after["hung"] == 0, after
    if schedule not in "cd":
        assert sum(before["lost"].values()) > 0, before
