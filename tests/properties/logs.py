"""The log files of one server: rotating them, counting their lines, and who still writes to old ones."""

import contextlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import Collection, Iterable, List, Optional, Set, TextIO, Tuple

from properties import wait
from properties.expect import LOSES, MISSES, count, expect

NAMES = ("access.log", "error.log", "application.log")

#: How long to wait for lines that are written before the answer to their request, and after it.
at_once, settling = wait.Patience(0), wait.Patience(5)


class Logs:
    def __init__(self, directory: Path, settling: wait.Patience = at_once) -> None:
        self.directory = directory
        self.settling = settling
        self.rotations = 0
        self.removed: List[Tuple[str, TextIO, Optional[str]]] = []  # And what had been read of them until then
        directory.mkdir()

    def path(self, name: str) -> Path:
        return self.directory / name

    def rotate(self, names: Iterable[str] = NAMES, create: bool = False) -> None:
        """Rename files as logrotate does, and make an empty one in their place if create."""
        self.rotations += 1
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # Rotated before, and nobody has been told since
                self.path(name).rename(self.path(f"{name}.{self.rotations:06d}"))
                if create:
                    self.path(name).touch()

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, but go on reading what is written to them."""
        for name in names:
            self.removed.append((name, open(self.path(name), errors="replace"), None))  # noqa: SIM115
            self.path(name).unlink()

    def take(self) -> None:
        """Read the rotated files and remove them, as compression does: what is written to them later is lost."""
        for path in self.rotated():
            file = open(path, errors="replace")  # noqa: SIM115  Nobody else gets its inode as long as it is open
            self.removed.append((_log_of(path), file, file.read()))
            path.unlink()

    def rotated(self) -> List[Path]:
        return sorted(self.directory.glob("*.log.*"))

    def discard(self) -> None:
        for file in self.rotated():
            file.unlink()
        for _, removed, _ in self.removed:
            removed.close()
        self.removed.clear()

    def held(self, pids: Iterable[int], files: Iterable[Path]) -> List[Tuple[int, str]]:
        """Which of these processes has a file open that is one of these, or was removed, and of which log."""
        logs = {_inode(os.stat(file)): _log_of(file) for file in files}
        logs.update((_inode(os.fstat(file.fileno())), name) for name, file, _ in self.removed)
        return [(pid, logs[inode]) for pid in pids for inode in _open_files(pid) & set(logs)]

    def lines(self, name: str, current_only: bool = False) -> List[str]:
        files = [self.path(name)] if current_only else self.directory.glob(f"{name}*")
        texts = [file.read_text(errors="replace") for file in files if file.exists()]
        for removed, file, text in [] if current_only else self.removed:
            if removed == name:
                file.seek(0)
                texts.append(file.read() if text is None else text)
        return [line for text in texts for line in text.splitlines()]

    def requests(self, name: str, current_only: bool = False) -> "Counter[str]":
        """How many lines each request has in a log: in all its files, or in the current one only."""
        return Counter(number for line in self.lines(name, current_only) for number in re.findall(r"\bid-\d+\b", line))

    def not_exactly_once(
        self, requests: Collection[str], names: Iterable[str] = NAMES, current_only: bool = False
    ) -> List[str]:
        """Which logs have lost lines of these requests, or doubled them, in words."""
        return list(filter(None, (self._wrong(name, requests, current_only) for name in names)))

    def expect_exactly_once(
        self, requests: Collection[str], names: Iterable[str] = NAMES, current_only: bool = False
    ) -> None:
        """Each of these requests has its line in each of these logs, once."""

        def wrong() -> str:
            return "; ".join(self.not_exactly_once(requests, names, current_only))

        self.settling.until(lambda: not wrong(), wrong, MISSES if current_only else LOSES)

    def expect_in_new_files(self, requests: Collection[str], names: Iterable[str] = NAMES) -> None:
        self.expect_exactly_once(requests, names, current_only=True)

    def _wrong(self, name: str, requests: Collection[str], current_only: bool) -> str:
        lines = self.requests(name, current_only)
        numbers = Counter(lines[request] for request in requests if lines[request] != 1)
        where = f"the new {name}" if current_only else name
        return ", ".join(
            f"{where} has {number or 'no'} lines for {affected:,} of {count(len(requests), 'request')}"
            for number, affected in sorted(numbers.items())
        )

    def expect_let_go(self, pids: Collection[int], when: str) -> None:
        expect(not self.held(pids, self.rotated()), lambda: f"{self.holders(pids)} {when}", MISSES)

    def holders(self, pids: Collection[int]) -> str:
        """How many of these processes still write to how many rotated files, in words."""
        held = self.held(pids, self.rotated())
        processes, logs = {pid for pid, _ in held}, {log for _, log in held}
        return f"{len(processes)} of {len(pids)} processes still wrote to a rotated {', '.join(sorted(logs))}"


def _log_of(rotated: Path) -> str:
    return re.sub(r"\.\d{6}$", "", rotated.name)


def _inode(stat: os.stat_result) -> Tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _open_files(pid: int) -> Set[Tuple[int, int]]:
    found = set()
    # If the process has ended, and has been waited for or not, it holds nothing any more
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # Closed while we look
                found.add(_inode(descriptor.stat()))
    return found
