"""Real logrotate, with the configuration of the original report, and reopen.sh."""

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Set

from properties.logs import Logs

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
    {directives}
    postrotate
        {postrotate}
    endscript
}}
"""

#: What reopen.sh runs under, each with the tools that come with it.
SHELLS = ("dash", "bash", "busybox")

#: What reopen.sh runs, but to ask for leases.
TOOLS = ["cat", "grep", "head", "ls", "readlink", "sed", "sleep", "sort", "stat", "tr", "xargs"]

Script = subprocess.Popen[str]


class Answer(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    def expect_silence(self) -> None:
        assert self == (0, "", "")

    def refused(self) -> str:
        assert (self.returncode, self.stdout) == (2, ""), self
        [message] = self.stderr.splitlines()
        assert message.startswith("reopen.sh: ") and message.endswith("; no signal was sent")
        assert message.isprintable()
        return message

    def writers(self) -> Dict[int, List[str]]:
        """What it says of each process that it has waited for in vain: "(program): file"."""
        assert self.returncode == 1, self
        said: Dict[int, List[str]] = {}
        for pid, what in re.findall(r"^  process (\d+):? (.*)$", self.stderr, re.MULTILINE):
            said.setdefault(int(pid), []).append(what)
        return said

    def not_signalled(self) -> Set[int]:
        said = self.writers()
        assert all(", not signalled): " in what for whats in said.values() for what in whats), self
        return set(said)


def start(*arguments: object, shell: str = "sh", prefix: Sequence[str] = (), path: object = None) -> Script:
    """Start reopen.sh; prefix is a command that runs it, path a directory to find programs in, and nowhere else."""
    command = [*prefix, found(shell), *(["sh"] if shell == "busybox" else []), str(REOPEN), *map(str, arguments)]
    places = f"{os.environ['APPLETS']}:{os.path.dirname(found('perl'))}" if shell == "busybox" else os.environ["PATH"]
    variables = {**os.environ, "PATH": str(path or places)}
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(script: Script, timeout: float = 60) -> Answer:
    out, err = script.communicate(timeout=timeout)
    return Answer(script.returncode, out, err)


def reopen(*arguments: object, **how: Any) -> Answer:
    return finish(start(*arguments, **how))


def in_each_shell(*arguments: object, timeout: float = 60) -> List[Answer]:
    """Run reopen.sh to its end in all shells at once: most of the time it only waits."""
    scripts = [start(*arguments, shell=shell) for shell in SHELLS]
    return [finish(one, timeout) for one in scripts]


def processor_time() -> float:
    """Of what has been run here, and has ended, in seconds."""
    return sum(os.times()[2:4])


def links(directory: Path, *names: str) -> Path:
    directory.mkdir()
    for one in names:
        (directory / one).symlink_to(found(one))
    return directory


def found(program: str) -> str:
    path = shutil.which(program)
    assert path, f"no {program} on the PATH"
    return path


class Logrotate:
    """Rotates the logs of a server with a pidfile; options are reopen.sh's, or postrotate is another command."""

    def __init__(self, logs: Logs, options: str = "", postrotate: str = "", directives: str = "") -> None:
        self.logs = logs
        self.configuration = logs.directory.parent / "logrotate.conf"
        postrotate = postrotate or f"'{REOPEN}' {options} '{logs.directory.parent}/pidfile' \"$@\""
        text = CONFIGURATION.format(directory=logs.directory, directives=directives, postrotate=postrotate)
        self.configuration.write_text(text)
        self.configuration.chmod(0o644)
        (logs.directory / "old").mkdir(exist_ok=True)  # For olddir

    def run(self, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """One rotation of every log, whatever its size; prefix is a command that runs logrotate."""
        command = [*prefix, "logrotate", "--force", "--state", f"{self.configuration}.state", str(self.configuration)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)

    def rotate(self, prefix: Sequence[str] = ()) -> None:
        answer = self.run(prefix)
        assert (answer.returncode, answer.stdout) == (0, ""), answer.stdout
        self.unpack()

    def unpack(self) -> None:
        """Read what has been compressed, and remove it."""
        for packed in self.logs.directory.rglob("*.gz"):
            name = re.split("[-.]", packed.name)[0]
            text = gzip.open(packed, "rt")  # noqa: SIM115
            self.logs.removed.append((f"{name}.log", text, text.read()))
            packed.unlink()
