"""
What the bug report did: ten requests, a rotation, ten requests. scenario.py VENV KILLALL, in the directory of main.py.

KILLALL is `real` where only this server's processes are to be seen, in a PID namespace of its own;
otherwise `private`: a stand-in for killall then signals the same processes, by process id.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

from properties import wait
from properties.clients import Client


def processes(arbiter: int) -> List[int]:
    children = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text()
    return [arbiter, *map(int, children.split())]


def holding_deleted(pids: List[int]) -> List[str]:
    found = []
    for descriptor in [entry for pid in pids for entry in Path(f"/proc/{pid}/fd").iterdir()]:
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(descriptor))
    return [target for target in found if ".log" in target and target.endswith("(deleted)")]


def requests(first: int, last: int) -> None:
    for number in range(first, last + 1):
        with Client(Path("socket")) as client:
            client.get("items", f"id-{number}")


def rotate(pids: List[int], killall: str) -> None:
    if killall == "private":
        Path("killall").write_text(f"#!/bin/sh\nkill -USR1 {' '.join(map(str, pids))}\n")
        Path("killall").chmod(0o755)
    path = f"{Path.cwd()}:{os.environ['PATH']}:/usr/sbin:/sbin"
    command = ["logrotate", "--force", "--state", "state", "logrotate.conf"]
    subprocess.run(command, check=True, env={**os.environ, "PATH": path})


def main(venv: str, killall: str) -> None:
    command = [
        f"{venv}/bin/gunicorn", "-w", "2", "-b", "unix:socket", "-k", "uvicorn.workers.UvicornWorker",
        "--access-logfile", "log/access.log", "main:app",
    ]  # fmt: skip
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open("stderr", "w") as stderr:
        gunicorn = subprocess.Popen(command, stderr=stderr, env=variables)
    said = Path("stderr").read_text
    try:
        wait.until(lambda: said().count("Application startup complete") == 2, said)
        pids = processes(gunicorn.pid)
        requests(1, 10)
        rotate(pids, killall)
        # As the reporter, who had to type: time enough for whoever reopens at all.
        with contextlib.suppress(AssertionError):
            wait.until(lambda: not holding_deleted(pids), said, patience=10)
        requests(11, 20)
    finally:
        gunicorn.send_signal(signal.SIGTERM)
        gunicorn.wait()


main(*sys.argv[1:])
