"""
The bug report: its environment, its logrotate configuration, and real logrotate and killall.

Before, the requests after a rotation are in no file. After scripts/apply.sh, all are, each once.
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import environments
import pytest
from environments import Environment, NotInstallable, Version
from test_reopen.logrotation import CONFIGURATION

TESTS = Path(__file__).parent
REPORT = TESTS / "report"
PYTHON = (3, 8)
PACKAGES = ("uvicorn[standard]==0.13.1", "gunicorn==20.0.4", "fastapi==0.62.0")
OF_ITS_TIME = "2021-01-01"
# For other Pythons: successors of what does not run there, as far as they work with the rest.
SUCCEEDED = (
    "uvicorn==0.13.1",
    "uvloop<0.22",
    "httptools",
    "gunicorn==20.0.4",
    "setuptools<81",
    "fastapi==0.62.0",
    "pydantic<2",
)

NAMESPACES = (
    ["unshare", "--pid", "--fork", "--mount-proc"],
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
)


def variants() -> Iterator[Tuple[Version, Tuple[str, ...], Optional[str]]]:
    """The report's environment, then what comes near it."""
    yield PYTHON, PACKAGES, OF_ITS_TIME
    for python in sorted(environments.pythons(), key=lambda python: abs(python[1] - PYTHON[1])):
        yield python, SUCCEEDED, None


def make(path: Path) -> Environment:
    refusals = []
    for python, packages, cutoff in variants():
        try:
            if python not in environments.pythons():
                raise NotInstallable("there is none here")
            environment = environments.make(path, python, *packages, exclude_newer=cutoff)
            check = [str(environment.python), "-c", "import fastapi, gunicorn, httptools, uvloop, uvicorn.workers"]
            subprocess.run(check, check=True, capture_output=True)
        except (NotInstallable, subprocess.CalledProcessError) as error:
            shutil.rmtree(path, ignore_errors=True)
            refusals.append(f"Python {python[0]}.{python[1]}: {str(error).splitlines()[-1]}")
            continue
        if refusals:
            warnings.warn(f"not the report's Python but {python[0]}.{python[1]}. {'; '.join(refusals)}", stacklevel=2)
        return environment
    pytest.skip(f"the report's packages run on no Python here. {'; '.join(refusals)}")


@pytest.fixture
def environment() -> Iterator[Environment]:
    # Not in tmp_path: the first line of bin/gunicorn names its Python, and must be short to be executed.
    directory = Path(tempfile.mkdtemp(prefix="usr1-report-"))
    yield make(directory / "venv")
    shutil.rmtree(directory)


def namespace() -> List[str]:
    for command in NAMESPACES:
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    warnings.warn("PID namespaces are not permitted here: killall is one that signals by process id", stacklevel=2)
    return []


def run(environment: Environment, directory: Path) -> Dict[str, "Counter[int]"]:
    """Do what the report did; how many lines each request has in all files of each log."""
    log = directory / "log"
    log.mkdir(parents=True)
    directory.chmod(0o755)
    shutil.copy(REPORT / "main.py", directory)
    configuration = directory / "logrotate.conf"
    configuration.write_text(CONFIGURATION.format(directory=log, directives="", postrotate="killall -s USR1 gunicorn"))
    configuration.chmod(0o644)
    unshare = namespace()
    killall = "real" if unshare else "private"
    subprocess.run(
        [*unshare, sys.executable, str(REPORT / "scenario.py"), str(environment.path), killall],
        check=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert "Handling signal: usr1" in (directory / "stderr").read_text()
    return {name: count(log, name) for name in ("access.log", "main.log", "tasks.log")}


def count(log: Path, name: str) -> "Counter[int]":
    rotated = sorted(log.glob(f"{name}-*.gz"))
    assert rotated, f"logrotate left no rotated {name}: {sorted(log.iterdir())}"
    texts = [gzip.decompress(file.read_bytes()).decode() for file in rotated]
    texts += [(log / name).read_text()] if (log / name).exists() else []
    return Counter(int(number) for text in texts for number in re.findall(r"\bid-(\d+)\b", text))


def test_report(environment: Environment, tmp_path: Path) -> None:
    before = run(environment, tmp_path / "before")
    assert before == {name: Counter(range(1, 11)) for name in before}, "expected ten requests, and the last ten lost"

    apply = [str(TESTS.parent / "scripts" / "apply.sh"), "--no-tests", str(environment.path)]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
    after = run(environment, tmp_path / "after")
    assert after == {name: Counter(range(1, 21)) for name in after}
