"""The bug report: its environment, its logrotate configuration, and real logrotate and killall."""

import contextlib
import gzip
import os
import re
import shutil
import subprocess
import warnings
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Iterator

import environments
import psutil
import pytest
from environments import Environment, NotInstallable
from properties import wait
from properties.clients import Client
from test_reopen.logrotation import CONFIGURATION

APPLY = Path(__file__).parents[1] / "scripts" / "apply.sh"
PYTHON = (3, 8)
PACKAGES = ("uvicorn[standard]==0.13.1", "gunicorn==20.0.4", "fastapi==0.62.0")
OF_ITS_TIME = "2021-01-01"
# For other Pythons: successors of what does not run there, as far as they work with the rest.
SUCCEEDED = (*environments.packages("0.13.1", "gunicorn==20.0.4"), "fastapi==0.62.0", "pydantic<2")

#: Such as the report's: with log files of its own beside Gunicorn's.
APPLICATION = """
import logging
from fastapi import FastAPI

app = FastAPI()

for name in ("main", "tasks"):
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler("log/%s.log" % name))

@app.get("/items/{item}")
async def read_item(item: str):
    for name in ("main", "tasks"):
        logging.getLogger(name).info("read %s", item)
    return {"item": item}
"""


def make(path: Path) -> Environment:
    """The report's environment, or what comes near it."""
    nearest = sorted(environments.pythons(), key=lambda python: abs(python[1] - PYTHON[1]))
    variants = [(PYTHON, PACKAGES, OF_ITS_TIME)] * (PYTHON in nearest)
    refusals = []
    for python, packages, cutoff in [*variants, *((python, SUCCEEDED, None) for python in nearest)]:
        try:
            environment = environments.make(path, python, *packages, exclude_newer=cutoff)
            check = [str(environment.python), "-c", "import fastapi, gunicorn, httptools, uvloop, uvicorn.workers"]
            subprocess.run(check, check=True, capture_output=True)
        except (NotInstallable, subprocess.CalledProcessError) as error:
            shutil.rmtree(path, ignore_errors=True)
            refusals.append(f"Python {python[0]}.{python[1]}: {str(error).splitlines()[-1]}")
            continue
        if cutoff is None:
            warnings.warn(f"not the report's environment: Python {python[0]}.{python[1]}. {refusals}", stacklevel=2)
        return environment
    pytest.skip(f"the report's packages run on no Python here. {'; '.join(refusals)}")


@pytest.fixture
def environment() -> Iterator[Environment]:
    # Not in tmp_path: the first line of bin/gunicorn names its Python, and must be short to be executed.
    with environments.open_directory() as directory:
        yield make(directory / "venv")


def run(environment: Environment, directory: Path) -> Dict[str, "Counter[int]"]:
    """Do what the report did: ten requests, a rotation, ten requests; how many lines each has in all files of a log."""
    log = directory / "log"
    log.mkdir(parents=True)
    directory.chmod(0o755)
    (directory / "main.py").write_text(APPLICATION)
    server = environment.path / "bin" / f"gunicorn{os.getpid()}"  # For killall to find no other's
    shutil.copy(environment.path / "bin" / "gunicorn", server)
    postrotate = f"killall -s USR1 {server.name}"
    configuration = directory / "logrotate.conf"
    configuration.write_text(CONFIGURATION.format(directory=log, directives="", postrotate=postrotate))
    configuration.chmod(0o644)
    command = [str(server), "-w", "2", "-b", "unix:socket", "-k", "uvicorn.workers.UvicornWorker"]
    command += ["--access-logfile", "log/access.log", "main:app"]
    said = directory / "stderr"
    with open(said, "w") as stderr, psutil.Popen(command, cwd=directory, stderr=stderr) as gunicorn:
        try:
            wait.until(lambda: said.read_text().count("Application startup complete") == 2, said.read_text)
            pids = [gunicorn.pid, *(child.pid for child in gunicorn.children())]
            get(directory, range(1, 11))
            rotate = ["logrotate", "--force", "--state", str(directory / "state"), str(configuration)]
            subprocess.run(rotate, check=True)
            # As the reporter, who had to type: time enough for whoever reopens at all.
            with contextlib.suppress(AssertionError):
                wait.until(lambda: not any(map(holds_deleted, pids)), said.read_text, patience=10)
            get(directory, range(11, 21))
        finally:
            gunicorn.terminate()
    assert "Handling signal: usr1" in said.read_text()
    return {name: count(log, name) for name in ("access.log", "main.log", "tasks.log")}


def get(directory: Path, numbers: Iterable[int]) -> None:
    opened = os.open(directory, os.O_RDONLY)  # The path of a socket has 107 bytes at most
    for number in numbers:
        with Client(Path(f"/proc/self/fd/{opened}/socket")) as client:
            client.get("items", f"id-{number}")
    os.close(opened)


def holds_deleted(pid: int) -> bool:
    """Whether a process writes to a log that logrotate has compressed and removed."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if re.search(r"\.log.* \(deleted\)$", os.readlink(descriptor)):
                return True
    return False


def count(log: Path, name: str) -> "Counter[int]":
    rotated = sorted(log.glob(f"{name}-*.gz"))
    assert rotated, f"logrotate left no rotated {name}: {sorted(log.iterdir())}"
    texts = [gzip.decompress(file.read_bytes()).decode() for file in rotated]
    texts += [(log / name).read_text()] if (log / name).exists() else []
    return Counter(int(number) for text in texts for number in re.findall(r"\bid-(\d+)\b", text))


def test_report(environment: Environment, tmp_path: Path) -> None:
    before = run(environment, tmp_path / "before")
    assert before == {name: Counter(range(1, 11)) for name in before}, "expected ten requests, and the last ten lost"

    apply = [str(APPLY), "--no-tests", str(environment.path)]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
    after = run(environment, tmp_path / "after")
    assert after == {name: Counter(range(1, 21)) for name in after}
