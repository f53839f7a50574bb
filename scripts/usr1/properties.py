"""Running the signal property tests against an environment."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from usr1.environment import Environment

ROOT = Path(__file__).resolve().parents[2]


def hold(environment: Environment) -> bool:
    """Whether every property holds there. They say so themselves, one line each."""
    suite = [str(ROOT / "tests" / "properties"), "--target", str(environment.path)]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *suite]
    # Hypothesis without bytecode takes seconds to import, each time anew. Servers leave none in the environment.
    unwanted = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    with subprocess.Popen(command, cwd=ROOT, env=variables) as pytest:
        try:
            return pytest.wait() == 0
        except BaseException as error:
            # It has servers to stop. A Ctrl-C has reached it already, and a second one would stop the stopping.
            if not isinstance(error, KeyboardInterrupt):
                pytest.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.wait(timeout=30)
            pytest.kill()
            raise
