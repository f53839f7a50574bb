"""scripts/bench.sh: what it counts can be other than nothing."""

import pytest
from bench import cells
from bench.subjects import OLD, PATCHED


@pytest.mark.full
@pytest.mark.parametrize("schedule", cells.SCHEDULES)
def test_losses_are_found(schedule: str) -> None:
    """On a release that swallows the signal, and none where it is patched."""
    before, after = (cells.losses(one, schedule, 4) for one in (OLD[0], PATCHED))
    if schedule not in "bd":  # These read what is still written to, and lose by design, be it little
        assert sum(after["lost"].values()) == after["broken"] == after["dead"] == after["hung"] == 0, after
    if schedule not in "cd":
        assert sum(before["lost"].values()) > 0, before
