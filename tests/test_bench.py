"""scripts/bench.sh: what it refuses, keeps and prints; and that what it counts can be other than nothing."""

import subprocess
from pathlib import Path
from typing import Any, Dict

import pytest
from bench import cells, report, run
from bench.subjects import OLD, PATCHED

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench.sh"


def lost(number: int, **others: int) -> Dict[str, Any]:
    none = {"doubled": 0, "broken": 0, "dead": 0, "hung": 0, "lines": 2000, "requests": 1000, "rotations": 200}
    return {**none, "lost": {"access.log": number, "application.log": 0}, **others}


MADE = {
    "losses|a|one": lost(1234, dead=2),
    "losses|a|other": lost(0),
    "losses|b|other": {"error": "no workers came up"},
    "reopening": {"one": cells.spread([170]), "other": cells.spread([400, 410, 420])},
    "letting go|8|idle": {"one": cells.spread([float("inf")]), "other": cells.spread([1, 2, 3, 4, 5])},
}


@pytest.mark.parametrize("arguments", [["--fast"], ["--quick", "--report"], [""] * 2])
def test_wrong_arguments(arguments: "list[str]") -> None:
    answer = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("bench.sh: expected nothing, --quick or --report, found ")


def test_tables() -> None:
    """What was not measured is not told, and what never came is."""
    said = report.text({"made": {"date": "2026-11-27", "machine": "2 cores"}, "cells": MADE})
    for line in (
        "| one | 200 | 2,000 | 1,000 | 1,234 lost, 2 dead |",
        "| other | 200 | 2,000 | 1,000 | 0 |",
        "| one | 1,234 lost, 2 dead | – |",
        "| other | 0 | does not serve any more: no workers came up |",
        "| other | 410 (400–420) |",
        "| one | never |",
        "| other | 3.00 (2.00–4.00) |",
    ):
        assert line in said.splitlines()
    assert "costs" not in said


def test_what_is_measured_is_kept_for_the_same_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path / "cache" / "bench.json")
    results = run.load()
    assert results["cells"] == {}
    run.save({**results, "cells": MADE})
    assert run.load()["cells"] == MADE
    run.save({"made": {**results["made"], "patches": "others"}, "cells": MADE})
    assert run.load()["cells"] == {}


@pytest.mark.full
@pytest.mark.parametrize("schedule", cells.SCHEDULES)
def test_losses_are_found(schedule: str) -> None:
    """On a release that swallows the signal, and none where it is patched."""
    before, after = (cells.losses(one, schedule, 4) for one in (OLD[0], PATCHED))
    if schedule not in "bd":  # These read what is still written to, and lose by design, be it little
        assert sum(after["lost"].values()) == after["broken"] == after["dead"] == after["hung"] == 0, after
    if schedule not in "cd":
        assert sum(before["lost"].values()) > 0, before
