"""Run the signal property tests against an environment, and show what they find."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, Optional

from usr1.apply.environment import Environment
from usr1.apply.screen import WRAPPED, lines_of, painted, progress, say
from usr1.apply.user import User
from usr1.refusal import refusal

ROOT = Path(__file__).resolve().parents[3]

#: Exit statuses: pytest's own, and that of tests/properties/conftest.py if some could not be tested, and others hold
USAGE, UNTESTED = 4, 6

OUTCOMES = {"PASSED": "green", "FAILED": "red", "SKIPPED": "yellow", "UNTESTED": "yellow"}


def variables() -> Dict[str, str]:
    """
    The environment variables to run the properties with: none that tells pytest or Python what to do.

    PYTEST_ADDOPTS=--collect-only would test nothing, PYTHONOPTIMIZE=1 would leave out every assertion.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}


#: As python -m does, with the directories that setup.cfg names to pytest; by PYTHONPATH servers would see them too.
MODULE = """
import runpy, sys
root = sys.argv.pop(1)
sys.path[:0] = [root + "/scripts", root + "/tests"]
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def started(user: Optional[User], module: str, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A module that starts servers, which it is given the time to stop; as a user, in a directory of that user's."""
    work = tempfile.mkdtemp(prefix="usr1-")
    if user:
        os.chown(work, user.number, user.group)
    try:
        # In a session of its own: a Ctrl-C reaches it from here only, and a second one does not stop the stopping.
        with subprocess.Popen(
            [sys.executable, "-u", "-c", MODULE, str(ROOT), module, *arguments],
            cwd=work, env={**variables(), "HOME": work, "TMPDIR": work}, preexec_fn=user and user.become,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield process
            except BaseException:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=30)
                process.kill()
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_checks(environment: Environment, user: Optional[User] = None, verbose: bool = False) -> bool:
    """
    Whether every property holds there. Shows those that do not, or all; and at the end what pytest sums up.

    Raises Refusal if nothing can be tested there.
    """
    suite = [str(ROOT / "tests" / "properties"), "--environment", str(environment.path)]
    options = ["-p", "no:cacheprovider", "-o", "console_output_style=classic", "-qq", "--tb=no", "-rN"]
    done, number, shown, unusable = 0, 0, True, ""

    def waiting() -> None:
        progress("tests", done, number)

    with started(user, "pytest", *options, *suite) as pytest:
        for line in lines_of(pytest, waiting):
            tested = re.fullmatch(r"(PASSED|FAILED|SKIPPED|UNTESTED) (.*) \(([\d.]+ s), (\d+) of (\d+)\)", line)
            if tested:
                outcome, promise, seconds = tested[1], tested[2], tested[3]
                done, number = int(tested[4]), int(tested[5])
                shown = verbose or outcome in ("FAILED", "UNTESTED")
                line = f"{painted(outcome, OUTCOMES[outcome])} {promise}{f' ({seconds})' if verbose else ''}"
            elif line.startswith("ERROR: "):  # Not of a test: pytest is told that it cannot start
                shown, unusable = False, line[len("ERROR: ") :]
            elif not line.startswith("   "):  # What belongs to a test is indented
                shown = True
            if shown and line:
                say(WRAPPED.fill(line))
            else:
                waiting()
        status = pytest.wait()
    if status == USAGE:
        raise refusal(
            f"{environment.path} cannot be tested",
            "to import gunicorn, and uvicorn's worker classes if uvicorn is installed",
            unusable,
            "install what is missing, then run this again; or patch without tests: --no-tests",
        )
    return status in (0, UNTESTED)
