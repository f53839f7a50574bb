"""The bug report: its environment, its logrotate configuration, and real logrotate and killall."""

import contextlib
import os
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Set

import environments
import psutil
import pytest
from environments import Environment, NotInstallable
from properties import wait
from properties.clients import Client
from properties.logs import Logs
from test_reopen.conftest import Logrotate

APPLY = Path(__file__).parents[1] / "scripts" / "apply.sh"
PYTHON = (3, 8)
PACKAGES = ("uvicorn[standard]==0.13.1", "gunicorn==20.0.4", "fastapi==0.62.0", "--exclude-newer=2021-01-01")
# For other Pythons: successors of what does not run there, as far as they work with the rest.
SUCCEEDED = (*environments.packages("0.13.1", "gunicorn==20.0.4"), "fastapi==0.62.0", "pydantic<2")

REQUESTS = [f"id-{number}" for number in range(1, 21)]

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
    variants = [(PYTHON, PACKAGES)] * (PYTHON in nearest)
    for python, packages in [*variants, *((python, SUCCEEDED) for python in nearest)]:
        with contextlib.suppress(NotInstallable):
            environment = environments.make(path, python, *packages)
            imports = "import fastapi, gunicorn, httptools, uvloop, uvicorn.workers"
            if environments.run(environment.python, "-c", imports).returncode == 0:
                if packages is SUCCEEDED:
                    warnings.warn(f"not the report's environment: Python {python[0]}.{python[1]}", stacklevel=2)
                return environment
            shutil.rmtree(path)
    pytest.skip("the report's packages run on no Python here")


def run(environment: Environment, directory: Path) -> Dict[str, "Counter[str]"]:
    """Do what the report did: ten requests, a rotation, ten requests; how many lines each has in all files of a log."""
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "main.py").write_text(APPLICATION)
    logs = Logs(directory / "log")
    server = environment.path / "bin" / f"gunicorn{os.getpid()}"  # For killall to find no other's
    shutil.copy(environment.path / "bin" / "gunicorn", server)
    logrotate = Logrotate(logs, postrotate=f"killall -s USR1 {server.name}")
    command = [str(server), "-w", "2", "-b", "unix:socket", "-k", "uvicorn.workers.UvicornWorker"]
    command += ["--access-logfile", "log/access.log", "main:app"]
    said = directory / "stderr"
    with open(said, "w") as stderr, psutil.Popen(command, cwd=directory, stderr=stderr) as gunicorn:
        try:
            wait.until(lambda: said.read_text().count("Application startup complete") == 2, said.read_text)
            processes = [gunicorn, *gunicorn.children()]
            get(gunicorn.pid, REQUESTS[:10])
            before = list(map(open_files, processes))
            logrotate.rotate()
            # As the reporter, who had to type: time enough for whoever reopens at all.
            with contextlib.suppress(AssertionError):
                wait.until(lambda: list(map(open_files, processes)) == before, said.read_text, patience=5)
            get(gunicorn.pid, REQUESTS[10:])
        finally:
            gunicorn.terminate()
    assert "Handling signal: usr1" in said.read_text()
    assert len(logs.removed) == 3, "each log has been rotated once"
    return {name: logs.requests(name) for name in ("access.log", "main.log", "tasks.log")}


def get(pid: int, requests: Iterable[str]) -> None:
    for request in requests:
        with Client(Path(f"/proc/{pid}/cwd/socket")) as client:  # The path of a socket has 107 bytes at most
            client.get("items", request)


def open_files(process: psutil.Process) -> Set[str]:
    """Not those that logrotate has compressed and removed."""
    return {file.path for file in process.open_files()}


def test_report(tmp_path: Path) -> None:
    # Not in tmp_path: the first line of bin/gunicorn names its Python, and must be short to be executed.
    with environments.open_directory() as directory:
        environment = make(directory / "venv")
        before = run(environment, tmp_path / "before")
        assert before == {name: Counter(REQUESTS[:10]) for name in before}, "expected the last ten lost"

        environments.run(APPLY, "--no-tests", environment.path).check_returncode()
        after = run(environment, tmp_path / "after")
        assert after == {name: Counter(REQUESTS) for name in after}
