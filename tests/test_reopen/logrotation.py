"""Real logrotate, with the configuration of the original report, and reopen.sh."""

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Set

import pytest
from properties import wait
from properties.logs import NAMES, Logs

REOPEN = Path(__file__).resolve().parents[2] / "scripts" / "reopen.sh"

CONFIGURATION = """
"{directory}"/*.log {{
    size 1M
    rotate 20
    compress
    nodelaycompress
    dateformat -%Y-%m-%d-%s
    dateext
    missingok
    notifempty
    postrotate
        {postrotate}
    endscript
}}
"""


#: What reopen.sh runs under, each with the tools that come with it.
SHELLS = ("dash", "bash", "busybox")

#: For what takes longer.
DASH_FIRST = (SHELLS[0], *(pytest.param(shell, marks=pytest.mark.full) for shell in SHELLS[1:]))


def start(
    *arguments: object, shell: str = "sh", prefix: Sequence[str] = (), user: Optional[int] = None
) -> "subprocess.Popen[str]":
    """Start reopen.sh; prefix is a command that runs it."""
    command = [*prefix, found(shell), *(["sh"] if shell == "busybox" else []), str(REOPEN), *map(str, arguments)]
    variables = {**os.environ, "PATH": os.environ["APPLETS"]} if shell == "busybox" else None
    return subprocess.Popen(
        command, env=variables, user=user, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(script: "subprocess.Popen[str]", timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    """Wait for the end of reopen.sh; what it may not take longer for than this."""
    try:
        stdout, stderr = script.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        script.kill()
        raise
    return subprocess.CompletedProcess(script.args, script.returncode, stdout, stderr)


def reopen(
    *arguments: object, shell: str = "sh", prefix: Sequence[str] = (), user: Optional[int] = None
) -> "subprocess.CompletedProcess[str]":
    """Run reopen.sh to its end."""
    return finish(start(*arguments, shell=shell, prefix=prefix, user=user))


def in_each_shell(*arguments: object, timeout: float = 60) -> "Dict[str, subprocess.CompletedProcess[str]]":
    """Run reopen.sh to its end in all shells at once: most of the time it only waits."""
    scripts = {shell: start(*arguments, shell=shell) for shell in SHELLS}
    return {shell: finish(script, timeout) for shell, script in scripts.items()}


def found(program: str) -> str:
    path = shutil.which(program)
    assert path, f"no {program} on the PATH"
    return path


def named(complaint: str) -> Dict[int, List[str]]:
    """What reopen.sh says of each process that it has waited for in vain: "(program)" and more."""
    said: Dict[int, List[str]] = {}
    for pid, what in re.findall(r"^  process (\d+) (.*)$", complaint, re.MULTILINE):
        said.setdefault(int(pid), []).append(what)
    return said


def files(complaint: str) -> Set[str]:
    """The names of the files in that."""
    return {Path(what.partition(": ")[2]).name for whats in named(complaint).values() for what in whats}


def wait_until_exactly_once(logs: Logs, requests: Iterable[str], names: Iterable[str] = NAMES) -> None:
    """Each request has one line in each log; a worker may log one only after it has answered."""
    wait.until(
        lambda: not logs.not_exactly_once(requests, names), lambda: str(logs.not_exactly_once(requests, names)[:9])
    )


class Logrotate:
    """Rotates a server's logs; arguments are reopen.sh's, or postrotate is another command."""

    def __init__(self, logs: Logs, arguments: Sequence[object] = (), postrotate: str = "") -> None:
        self.logs = logs
        self.configuration = logs.directory.parent / "logrotate.conf"
        postrotate = postrotate or " ".join([f"'{REOPEN}'", *(f"'{argument}'" for argument in arguments)])
        self.configuration.write_text(CONFIGURATION.format(directory=logs.directory, postrotate=postrotate))
        self.configuration.chmod(0o644)

    def run(self) -> "subprocess.CompletedProcess[str]":
        """One rotation of every log, whatever its size."""
        command = ["logrotate", "--force", "--state", f"{self.configuration}.state", str(self.configuration)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)

    def rotate(self, allowed: str = "") -> None:
        """One rotation that must succeed without a word, but for lines that begin with what is allowed."""
        answer = self.run()
        said = [line for line in answer.stdout.splitlines() if not (allowed and line.startswith(allowed))]
        assert (answer.returncode, said) == (0, []), answer.stdout
        self.unpack()

    def unpack(self) -> None:
        """Unpack what has been compressed, under names that the next rotation leaves alone."""
        for packed in self.logs.directory.glob("*.gz"):
            self.logs.rotations += 1
            name = packed.name.split(".log-")[0]
            plain = packed.with_name(f"{name}.log.{self.logs.rotations:06d}")
            plain.write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
