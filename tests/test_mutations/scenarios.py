"""Runs the scenarios of target/scenarios.py in a real worker."""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import List, Tuple

from environments import Environment
from properties import wait
from properties.expect import Broken
from test_interruptions.run import UnixConnection

SERVED = Path(__file__).with_name("served")
PATIENCE = 10.0  # seconds, for what takes a second


class Served:
    """A gunicorn with one worker, in a directory of its own."""

    def __init__(self, home: Path, environment: Environment, on_load: str) -> None:
        self.home = home
        command = [str(environment.python), "-m", "gunicorn", "-c", "python:settings", "-k", "settings.Counting"]
        command += ["--bind", "unix:socket", "--timeout", "300", "--graceful-timeout", "1", "scenarios:app"]
        variables = {**os.environ, "PYTHONPATH": str(SERVED), "PYTHONDONTWRITEBYTECODE": "1", "ON_LOAD": on_load}
        with open(home / "stderr", "w") as stderr:
            self.server = subprocess.Popen(
                command, cwd=home, env=variables, stdout=stderr, stderr=stderr, start_new_session=True
            )

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def get(self, check: str = "") -> Tuple[str, str]:
        """Which worker answered, and what; it may be one that still boots."""
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = UnixConnection(self.home / "socket", PATIENCE)
            try:
                connection.request("GET", f"/{check}")
                answer = connection.getresponse()
                return answer.headers["pid"], answer.read().decode()
            except (ConnectionRefusedError, FileNotFoundError):
                if time.monotonic() > deadline or self.server.poll() is not None:
                    return "", "it does not come up"
            except (OSError, http.client.HTTPException) as error:
                return "", f"not answered: {error!r}"
            finally:
                connection.close()
            time.sleep(0.01)

    def exits(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.home / "exits").read_text()
        return ""


def scenario(name: str, environment: Environment, home: Path, on_load: str = "") -> List[str]:
    """What is wrong in one of the scenarios, nothing if nothing is."""
    with Served(home, environment, on_load) as served:
        worker, said = served.get(name)
        found = [said]
        if said == "ok":
            after, answered = served.get()
            found += [answered, "ok" if after == worker else "another worker has taken its place"]
        stderr = (home / "error.log").read_text() if (home / "error.log").exists() else ""
    complaints = [line for line in stderr.splitlines() if "ignored in thread" in line]
    return [f"{name}: {complaint}" for complaint in (*found, *complaints) if complaint != "ok"]


def inherited(environment: Environment, home: Path) -> List[str]:
    """A worker that cannot open a log that it has from the arbiter leaves in good order, once."""
    with Served(home, environment, "") as served:
        worker, said = served.get("inherited")
        try:
            wait.until(lambda: f"[{worker}, " in served.exits(), lambda: "the worker stays", PATIENCE)
        except Broken as stays:
            return [str(stays)]
        answers = [served.get() for _ in range(2)]
        others = {other for other, _ in answers}
        found = [text for text in (said, *(text for _, text in answers)) if text != "ok"]
        ends = [end for end in served.exits().splitlines() if end not in (f"[{worker}, 0]", f"[{worker}, 15]")]
    return found + ends + ([] if len(others) == 1 else ["more than one worker has taken its place"])
