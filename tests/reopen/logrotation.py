"""Real logrotate, with the configuration of the original report, and reopen.sh."""

import gzip
import subprocess
from pathlib import Path
from typing import Iterable, Optional, Sequence

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


def reopen(*arguments: object, shell: str = "sh", user: Optional[int] = None) -> "subprocess.CompletedProcess[str]":
    """Run reopen.sh to its end."""
    command = [shell, str(REOPEN), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, user=user, timeout=60)


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

    def rotate(self) -> None:
        """One rotation that must succeed without a word."""
        answer = self.run()
        assert (answer.returncode, answer.stdout) == (0, ""), answer.stdout
        self.unpack()

    def unpack(self) -> None:
        """Unpack what has been compressed, under names that the next rotation leaves alone."""
        for packed in self.logs.directory.glob("*.gz"):
            self.logs.rotations += 1
            name = packed.name.split(".log-")[0]
            plain = packed.with_name(f"{name}.log.{self.logs.rotations:06d}")
            plain.write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
