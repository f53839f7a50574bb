"""The properties in a pytest of their own, for tests that run them on many environments."""

import subprocess
import sys
from pathlib import Path
from typing import Tuple

from usr1.apply.proof import variables

PROPERTIES = Path(__file__).parent
PATIENCE = 600  # seconds for what takes about twenty


def run(venv: Path, *arguments: str, test: str = "") -> Tuple[int, str]:
    """Quickly, all of them or a test of these: pytest's exit status, and what it printed."""
    answer = subprocess.run(
        [
            # It has servers to stop
            "timeout", "--foreground", "--signal=INT", f"{PATIENCE}",
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--effort", "quick",
            "--environment", str(venv), *arguments, str(PROPERTIES / test),
        ],
        cwd=PROPERTIES.parents[1], env=variables(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
    )  # fmt: skip
    return answer.returncode, answer.stdout
