"""
The matrix: the quick properties on every patched release of uvicorn, on the oldest and the newest
Python at hand that it runs on, with old and new versions of gunicorn.

matrix.py [RELEASE ...]: all releases unless some are named. Two cases run at a time. Results are kept in
.cache/matrix.json, so an interrupted run goes on where it was; docs/matrix.md gets the table.
Exit status 1 if a case failed.
"""

import datetime
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Dict, List, NamedTuple

import environments
from environments import NotInstallable, Version
from properties import run as properties
from properties import target
from usr1 import patches
from usr1.patches import Patch, PatchError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".cache" / "matrix.json"
TABLE = ROOT / "docs" / "matrix.md"

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
    release: str
    python: Version
    gunicorn: str

    def __str__(self) -> str:
        return f"uvicorn {self.release}, Python {self.python[0]}.{self.python[1]}, gunicorn {self.gunicorn}"


class Pairing:
    """Chooses gunicorns so that each meets each patch, and each Python, as evenly as there are cases."""

    def __init__(self) -> None:
        self.met: Counter = Counter()
        self.cases: List[Case] = []

    def add(self, patch: Patch, release: str, python: Version) -> None:
        able = [gunicorn for gunicorn, oldest in GUNICORNS.items() if python >= oldest]
        chosen = min(able, key=lambda gunicorn: self.met[patch.path, gunicorn] + self.met[python, gunicorn])
        self.met.update([(patch.path, chosen), (python, chosen)])
        self.cases.append(Case(release, python, chosen))

    def complete(self, patch: Patch) -> None:
        """Let the newest release of a patch meet the gunicorns that none has met."""
        for gunicorn, oldest in GUNICORNS.items():
            pythons = [python for python in environments.pythons_for(patch.releases[-1]) if python >= oldest]
            if pythons and not self.met[patch.path, gunicorn]:
                self.met.update([(patch.path, gunicorn), (pythons[-1], gunicorn)])
                self.cases.append(Case(patch.releases[-1], pythons[-1], gunicorn))


def cases() -> List[Case]:
    pairing = Pairing()
    for patch in patches.catalogue("uvicorn"):
        for release in patch.releases:
            pythons = environments.pythons_for(release)
            for python in sorted({*pythons[:1], *pythons[-1:]}):
                pairing.add(patch, release, python)
        pairing.complete(patch)
    return pairing.cases


def fingerprint(release: str) -> str:
    """Of all that a result depends on: the patch and the properties."""
    patch = patches.find("uvicorn", release)
    assert patch is not None
    files = [patch.path, *sorted(properties.PROPERTIES.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def run(case: Case) -> str:
    """passed, failed: …, or not installable: …"""
    setuptools = ["setuptools<81"] if case.gunicorn.startswith("20.") else []  # They import pkg_resources
    requirements = [*environments.packages(case.release, f"gunicorn=={case.gunicorn}"), *setuptools]
    with tempfile.TemporaryDirectory(prefix="usr1-matrix-") as directory:
        try:
            environment = environments.make(Path(directory) / "venv", case.python, *requirements)
            target.inspect(environment.path)
            environments.patched(environment, "uvicorn", case.release)
        except (NotInstallable, target.Unusable) as error:
            return f"not installable: {str(error).splitlines()[-1]}"
        except PatchError as error:
            return f"failed: {error}"
        status, output = properties.run(environment.path)
    failures = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "passed" if status == 0 else f"failed: {failures or output[-500:]}"


def table(results: Dict[str, Dict[str, str]], wanted: List[Case]) -> str:
    lines = [
        "# The matrix",
        "",
        f"The signal properties on patched uvicorn, {datetime.date.today()}, on Linux {os.uname().release}.",
        "`scripts/test.sh --full` makes this table.",
        "",
        "| uvicorn | Python | gunicorn | result |",
        "|---|---|---|---|",
    ]
    for case in wanted:
        python = ".".join(map(str, case.python))
        lines.append(f"| {case.release} | {python} | {case.gunicorn} | {results[str(case)]['result']} |")
    return "\n".join(lines) + "\n"


def main(releases: List[str]) -> int:
    wanted = [case for case in cases() if not releases or case.release in releases]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = [
        case
        for case in wanted
        if results.get(str(case), {}).get("fingerprint") == fingerprint(case.release)
        and not results[str(case)]["result"].startswith("failed")
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    start = time.monotonic()
    pool = ThreadPoolExecutor(2)
    try:
        futures = {pool.submit(run, case): case for case in wanted if case not in known}
        for number, future in enumerate(as_completed(futures), len(known) + 1):
            case = futures[future]
            results[str(case)] = {"result": future.result(), "fingerprint": fingerprint(case.release)}
            RESULTS.write_text(json.dumps(results, indent=1))
            minutes = (time.monotonic() - start) / 60
            print(f"{number}/{len(wanted)} {minutes:5.1f} min  {case}: {results[str(case)]['result']}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)  # After an interruption the two that run are still waited for
    text = table(results, wanted)
    print(text)
    if not releases:
        TABLE.write_text(text)
    return int(any(results[str(case)]["result"].startswith("failed") for case in wanted))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
