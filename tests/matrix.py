"""
The matrix: the quick properties on every patched release, on the oldest and the newest Python at
hand that it runs on, with old and new versions of gunicorn; uvicorn-worker with the oldest and the
newest uvicorn that it runs with.

matrix.py [RELEASE ...]: all releases unless some are named. Results are kept in
.cache/matrix.json, so an interrupted run goes on where it was; docs/matrix.md gets a summary.
Exit status 1 if a case failed.
"""

import datetime
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import environments
from environments import MODULES, Environment, NotInstallable, Version, Workers
from packaging.version import Version as Release
from properties import run as properties
from properties.environment import Unusable, inspect
from properties.server import Server
from usr1 import patches
from usr1.patches import Patch, PatchError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".cache" / "matrix.json"
SUMMARY = ROOT / "docs" / "matrix.md"

#: The versions of gunicorn to be paired, and the oldest Python that each runs on.
GUNICORNS: Dict[str, Version] = {
    "20.0.4": (3, 5),
    "20.1.0": (3, 5),
    "21.2.0": (3, 5),
    "22.0.0": (3, 7),
    "23.0.0": (3, 7),
    "25.3.0": (3, 10),
    "27.0.1": (3, 10),
}


class Case(NamedTuple):
    patch: Patch
    workers: Workers
    python: Version
    gunicorn: str

    def __str__(self) -> str:
        return f"{self.workers}, Python {self.python[0]}.{self.python[1]}, gunicorn {self.gunicorn}"


class Pairing:
    """Chooses gunicorns so that each meets each patch, and each Python, as evenly as there are cases."""

    def __init__(self) -> None:
        self.met: "Counter[Tuple[object, str]]" = Counter()
        self.cases: List[Case] = []

    def add(self, patch: Patch, workers: Workers, python: Version) -> None:
        able = [gunicorn for gunicorn in GUNICORNS if runs(gunicorn, workers, python)]
        self._meet(patch, workers, python, min(able, key=lambda one: self.met[patch.path, one] + self.met[python, one]))

    def complete(self, patch: Patch, workers: Workers) -> None:
        """Let the newest release of a patch meet the gunicorns that none has met."""
        for gunicorn in GUNICORNS:
            pythons = [python for python in workers.pythons() if runs(gunicorn, workers, python)]
            if pythons and not self.met[patch.path, gunicorn]:
                self._meet(patch, workers, pythons[-1], gunicorn)

    def _meet(self, patch: Patch, workers: Workers, python: Version, gunicorn: str) -> None:
        self.met.update([(patch.path, gunicorn), (python, gunicorn)])
        self.cases.append(Case(patch, workers, python, gunicorn))


def runs(gunicorn: str, workers: Workers, python: Version) -> bool:
    return python >= GUNICORNS[gunicorn] and Release(gunicorn) >= Release(workers.needs.gunicorn)


def cases() -> List[Case]:
    pairing = Pairing()
    for distribution in environments.MODULES:
        for patch in patches.catalogue(distribution):
            every = [one for release in patch.releases for one in environments.workers(distribution, release)]
            for workers in every:
                for python in sorted({*workers.pythons()[:1], *workers.pythons()[-1:]}):
                    pairing.add(patch, workers, python)
            pairing.complete(patch, every[-1])
    return pairing.cases


def fingerprint(workers: Workers) -> str:
    """Of all that a result depends on: the patch and the properties."""
    patch = patches.find(workers.distribution, workers.release)
    assert patch is not None
    files = [patch.path, *sorted(properties.PROPERTIES.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def make(case: Case, path: Path) -> Environment:
    packages = case.workers.packages(f"gunicorn=={case.gunicorn}")
    # As uvicorn[standard] has it
    return environments.make(path, case.python, *packages, "websockets", compiled=True)


def broken_as_published(pristine: Environment) -> int:
    """How many requests are not answered, of a hundred to each worker class, while nobody sends a signal."""
    broken = 0
    for worker_class in inspect(pristine.path).worker_classes:
        with Server(pristine.python, worker_class) as server:
            for _ in range(100):
                try:
                    server.get()
                except OSError:
                    broken += 1
    return broken


def run(case: Case) -> str:
    """passed, failed: …, not installable: …, or broken as published: …"""
    with tempfile.TemporaryDirectory(prefix="usr1-matrix-") as directory:
        os.chmod(directory, 0o755)  # The properties serve as nobody, too
        try:
            environment = make(case, Path(directory) / "venv")
            inspect(environment.path)
            environments.patched(environment, case.workers.distribution, case.workers.release)
        except (NotInstallable, Unusable) as error:
            return f"not installable: {str(error).splitlines()[-1]}"
        except PatchError as error:
            return f"failed: {error}"
        status, output = properties.run(environment.path, "-k", MODULES[case.workers.distribution])
        broken = status and broken_as_published(make(case, Path(directory) / "pristine"))
    if broken:
        return f"broken as published: {broken} requests without any signal"
    failures = re.findall(r"^(?:FAILED|ERROR) .*\n(?: +.*)?", output, re.MULTILINE)
    return "passed" if status == 0 else f"failed: {failures or output[-500:]}"


def summary(results: Dict[str, str], wanted: List[Case]) -> str:
    """A line for each patch, and one for each case that did not pass."""
    lines = [
        "# The matrix",
        "",
        f"The signal properties on every patched release, {datetime.date.today()}, on {platform.system()}, each on the",
        "oldest and the newest Python that it runs on, with old and new versions of Gunicorn.",
        "`scripts/test.sh --full` makes this table; `.cache/matrix.json` then has all the cases.",
        "",
        "| patch | releases | Python | Gunicorn | passed |",
        "|---|---|---|---|---|",
    ]
    for patch, group in groupby(wanted, key=lambda case: case.patch):
        of_patch = list(group)
        pythons = sorted({case.python for case in of_patch})
        gunicorns = sorted({case.gunicorn for case in of_patch}, key=Release)
        passed = [case for case in of_patch if results[str(case)] == "passed"]
        lines.append(
            f"| {patch.distribution} {patch.path.stem} | {len({case.workers.release for case in of_patch})}"
            f" | {', '.join(f'{major}.{minor}' for major, minor in pythons)} | {', '.join(gunicorns)}"
            f" | {len(passed)} of {len(of_patch)} |"
        )
    others = [f"- {case}: {results[str(case)]}" for case in wanted if results[str(case)] != "passed"]
    return "\n".join([*lines, *(["", "Not passed:", "", *others] if others else [])]) + "\n"


def main(releases: List[str]) -> int:
    wanted = [case for case in cases() if not releases or case.workers.release in releases]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = [
        case
        for case in wanted
        if results.get(str(case), {}).get("fingerprint") == fingerprint(case.workers)
        and not results[str(case)]["result"].startswith("failed")
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    start = time.monotonic()
    pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1))  # Half of the time they wait for servers
    try:
        futures = {pool.submit(run, case): case for case in wanted if case not in known}
        for number, future in enumerate(as_completed(futures), len(known) + 1):
            case = futures[future]
            results[str(case)] = {"result": future.result(), "fingerprint": fingerprint(case.workers)}
            RESULTS.write_text(json.dumps(results, indent=1))
            minutes = (time.monotonic() - start) / 60
            print(f"{number}/{len(wanted)} {minutes:5.1f} min  {case}: {results[str(case)]['result']}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)  # After an interruption those that run are still waited for
    said = {str(case): results[str(case)]["result"] for case in wanted}
    print(summary(said, wanted))
    if not releases:
        SUMMARY.write_text(summary(said, wanted))
    return int(any(result.startswith("failed") for result in said.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
