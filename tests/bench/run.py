"""scripts/bench.sh: what is measured in which order, kept from run to run."""

import datetime
import hashlib
import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Sequence

from bench import cells, report
from bench.cells import SCHEDULES, Figures
from bench.subjects import ALONE, GTHREAD, GTHREAD_PATCHED, MAIN, PATCHED, PRISTINE, SUBJECTS, Subject
from properties.expect import Broken
from usr1 import patches, wheel

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / ".cache" / "bench.json"

#: What is measured, by its name in the results.
Cells = Dict[str, Callable[[], Figures]]


def losses(subjects: Sequence[Subject], rotations: Dict[str, int]) -> Cells:
    return {
        f"losses|{schedule}|{one.name}": partial(cells.losses, one, schedule, rotations[schedule[0]])
        for schedule in SCHEDULES
        if schedule[0] in rotations
        for one in subjects
    }


def letting_go(subjects: Sequence[Subject], numbers: Sequence[int], rounds: int) -> Cells:
    return {
        f"letting go|{workers}|{how}": partial(cells.letting_go, subjects, workers, how == "loaded", rounds)
        for workers in numbers
        for how in ("idle", "loaded")
    }


def quick() -> Cells:
    return {
        "costs|uvicorn": lambda: cells.costs((PRISTINE, PATCHED), 6, 0.5),
        **letting_go((PRISTINE, PATCHED, GTHREAD), [8], 6),
        **losses((PRISTINE, PATCHED, GTHREAD), {"a": 10, "b": 3, "c": 3, "e": 2}),
    }


def full() -> Cells:
    workers = (PRISTINE, ALONE, PATCHED, GTHREAD)
    gunicorns = [one for one in SUBJECTS if one.name.startswith(("Gunicorn sync", "Gunicorn gthread", "Gunicorn asgi"))]
    return {
        **letting_go(workers, [8], 40),
        "costs|uvicorn": lambda: cells.costs((PRISTINE, ALONE, PATCHED), 60, 0.3),
        "costs|Gunicorn": lambda: cells.costs(gunicorns, 6, 0.7),
        **letting_go((PRISTINE, PATCHED, GTHREAD), [1, 32, 64], 10),
        "reopening": lambda: cells.reopening((*workers, GTHREAD_PATCHED), 40),
        **losses(SUBJECTS, {"a": 200}),
        **losses(MAIN, {"b": 200, "c": 200, "d": 200}),
        **losses(SUBJECTS, {"f": 200, "g": 200, "e": 200}),
    }


def machine() -> Dict[str, str]:
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    texts = [path.read_bytes() for path in sorted(patches.PATCHES.glob("*/*.patch"))]
    return {
        "date": f"{datetime.date.today()}",
        "machine": f"{os.cpu_count()} × {model.partition(': ')[2]}, Linux {platform.release()}",
        "patches": hashlib.sha256(b"".join(texts)).hexdigest(),
    }


def main() -> int:
    is_quick, only_report = "--quick" in sys.argv, "--report" in sys.argv
    results: Dict[str, Any] = {"made": machine(), "cells": {}}
    if RESULTS.exists() and not is_quick:
        kept = json.loads(RESULTS.read_text())
        if kept["made"].get("patches") == results["made"]["patches"]:
            results = kept  # Measured by an earlier run, of the same patches
    if only_report and not results["cells"]:
        wrong = f"expected results of these patches in {RESULTS}, found none; run scripts/bench.sh"
        print(f"bench.sh: {wrong}", file=sys.stderr)
        return 2
    wanted = {} if only_report else quick() if is_quick else full()
    missing = [key for key in wanted if key not in results["cells"]]
    for number, key in enumerate(missing):
        start = time.monotonic()
        try:
            results["cells"][key] = wanted[key]()
        except (Broken, OSError) as error:  # Such as a server that does not come up any more, or a worker that is gone
            results["cells"][key] = {"error": str(error)}
        seconds = time.monotonic() - start
        print(f"{number + 1} of {len(missing)}: {key.replace('|', ', ')}: {seconds:.0f} s", flush=True)
        if not is_quick:
            wheel.write(RESULTS, json.dumps(results, indent=1).encode())
    if not is_quick:
        report.write(results)
    print(report.text(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
