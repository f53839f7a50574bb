"""Running the signal property tests against an environment."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict

from usr1.apply.environment import Environment

ROOT = Path(__file__).resolve().parents[3]


def variables() -> Dict[str, str]:
    """
    The environment variables to run the properties with: none that tells pytest or Python what to do.

    PYTEST_ADDOPTS=--collect-only would test nothing, PYTHONOPTIMIZE=1 would leave out every assertion.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}


def hold(environment: Environment, say: Callable[[str], None]) -> bool:
    """Whether every property holds there. They say so themselves, one line each, and a verdict at the end."""
    suite = [str(ROOT / "tests" / "properties"), "--environment", str(environment.path)]
    command = [sys.executable, "-u", "-m", "pytest", "-p", "no:cacheprovider", "-qq", "--tb=no", "-rN", *suite]
    # In a session of its own: a Ctrl-C reaches it from here only, and a second one does not stop the stopping.
    with subprocess.Popen(
        command, cwd=ROOT, env=variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, errors="replace", start_new_session=True,
    ) as pytest:  # fmt: skip
        assert pytest.stdout is not None
        try:
            for line in pytest.stdout:
                say(line.rstrip("\n"))
            return pytest.wait() == 0
        except BaseException:
            pytest.send_signal(signal.SIGINT)  # It has servers to stop
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.communicate(timeout=30)
            pytest.kill()
            raise
