"""
Hooks for pip: the fork of the distribution that this directory is named after.

The same file in every directory of vendor/; what they share is in scripts/usr1/forks/fork.py.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "scripts"

if not (SCRIPTS / "usr1" / "forks" / "fork.py").is_file():
    sys.exit(
        "expected {}, the rest of the repository, found none: install from a whole clone, with pip 21.3 or "
        "later (older ones build in a copy of this directory alone)".format(SCRIPTS / "usr1" / "forks" / "fork.py")
    )
sys.path.insert(0, str(SCRIPTS))

from usr1.forks.fork import Backend  # noqa: E402

hooks = Backend(HERE.name)
