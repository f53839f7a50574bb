"""A real gunicorn of an environment, and what a test does to it."""

import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Collection, DefaultDict, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from properties import wait
from properties.clients import Client, new_request
from properties.environment import GTHREAD, is_own, is_wsgi
from properties.expect import COMPLAINS, KILLS, count, expect
from properties.logs import NAMES, Logs, at_once, settling

NOBODY = 65534

SERVED = Path(__file__).with_name("served")

#: How long to wait for processes to reopen their logs, by the module that their worker class is in.
reopening: DefaultDict[str, wait.Patience] = collections.defaultdict(lambda: wait.Patience(5))

#: What a log or stderr says when something went wrong.
COMPLAINT = re.compile(r"Traceback|Error|Exception|\[ERROR\]|\[CRITICAL\]|--- Logging error")
#: The last line of a traceback, which names the cause of other complaints.
EXCEPTION = re.compile(r"^[\w.]+(Error|Exception)\b")

#: The bytecode of an environment that has none, as uv leaves it: each worker would compile all that it imports
BYTECODE = tempfile.TemporaryDirectory(prefix="usr1-")


def bytecode(python: Path) -> Dict[str, str]:
    """The variables with which a server writes no bytecode into its environment."""
    library = python.parents[1] / "lib"
    if any(library.glob("py*/site-packages/gunicorn/__pycache__")) or any(library.glob("python3.[67]")):
        return {"PYTHONDONTWRITEBYTECODE": "1"}  # Before Python 3.8 no other directory can be named
    return {"PYTHONPYCACHEPREFIX": BYTECODE.name}


class Hold:
    """A place where the served processes wait; see served/checkpoints.py."""

    def __init__(self, server: "Server", place: str) -> None:
        self.server = server
        self.place = place
        self.file = server.control / f"hold.{place}"

    def reached(self) -> int:
        """Wait for a process to come to this place; its process id."""

        def missing() -> str:
            return f"no process came to {self.place!r} within {wait.PATIENCE:g} s: {self.server.last_words()}"

        return wait.until(self.marks, missing)[0]

    def marks(self) -> List[int]:
        return [int(mark.suffix[1:]) for mark in self.server.control.glob(f"{self.place}.*")]

    def release(self) -> None:
        self.file.unlink()
        for pid in self.marks():
            (self.server.control / f"{self.place}.{pid}").unlink()


class Server:
    """
    Gunicorn with the application in served/, listening on a Unix socket in a directory of its own.

    modules are the sources, by name, of modules that it can import.
    """

    def __init__(
        self,
        python: Path,
        worker_class: str,
        workers: int = 2,
        options: Sequence[str] = (),
        variables: Mapping[str, str] = {},
        modules: Mapping[str, str] = {},
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="usr1-"))
        base = variables.get("WORKER_CLASS") or worker_class
        # Other workers than uvicorn's log a request when they have answered it.
        self.logs = Logs(self.directory / "logs", at_once if base.startswith("uvicorn") else settling)
        self.control = self.directory / "control"
        self.control.mkdir()
        (self.control / "events").touch()
        self.fifo = self.control / "fifo"  # Where an application reads until a test lets it go on
        os.mkfifo(self.fifo)
        # By a descriptor: the path of a socket has 107 bytes at most, that of TMPDIR any number.
        self.opened = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        self.socket = Path(f"/proc/self/fd/{self.opened}/socket")
        for name, source in modules.items():
            (self.directory / f"{name}.py").write_text(source, encoding="utf-8")
        self.worker_class, self.worker_count = worker_class, workers
        self.reopening = reopening["gunicorn" if is_own(base) else base.rpartition(".")[0]]
        threads = ["--threads", "8"] if base in (GTHREAD, "gthread") else []
        application = "wsgi" if is_wsgi(base) else "aiohttps" if base.startswith("aiohttp.") else "application"
        self.command = [
            str(python), "-m", "gunicorn.app.wsgiapp", "--worker-class", worker_class, "--workers", str(workers),
            "--bind", "unix:socket", "--config", str(SERVED / "configuration.py"),
            # A client or worker that a busy machine stalls is not to be given up meanwhile.
            "--keep-alive", "600", "--timeout", "300",
            "--access-logfile", str(self.logs.path("access.log")), "--error-logfile", str(self.logs.path("error.log")),
            "--worker-tmp-dir", str(self.directory), *threads, *options, f"{application}:app",
        ]  # fmt: skip
        self.variables: Dict[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GUNICORN"))},
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(SERVED)]),
            **bytecode(python),
            # Where newer gunicorns put a socket of their own, in the place of another one's
            "HOME": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory),
            "CONTROL": str(self.control),
            "SERVES": application,
            "APPLICATION_LOG": str(self.logs.path("application.log")),
            **variables,
        }

    def __enter__(self) -> "Server":
        with open(self.directory / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, env=self.variables, stdin=subprocess.DEVNULL,
                stdout=stderr, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        try:
            self.wait_until_serving()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # How it ends by itself is for tests to look at
        self.process.wait()
        self.discard()

    def let_others_in(self) -> None:
        """Let workers of another user read what they need, and note what happens."""
        self.directory.chmod(0o755)
        self.control.chmod(0o777)
        self.variables["APPLICATION_LOG"] = str(self.control / "application.log")
        (self.control / "events").chmod(0o666)

    def discard(self) -> None:
        os.close(self.opened)
        shutil.rmtree(self.directory)

    # Processes

    @property
    def arbiter(self) -> int:
        return self.process.pid

    def events(self) -> List[List[str]]:
        """What the served processes have noted, in order, in words."""
        return [line.split() for line in (self.control / "events").read_text().splitlines()]

    def times(self, event: str) -> int:
        return sum(words[0] == event for words in self.events())

    def workers(self) -> List[int]:
        """Those that gunicorn has forked and not yet seen end, by process id, oldest first."""
        return [pid for pid, status in self._statuses().items() if status is None]

    def exits(self) -> Dict[int, int]:
        """The exit status, as waitpid() gave it, of each worker that has ended."""
        return {pid: status for pid, status in self._statuses().items() if status is not None}

    def _statuses(self) -> Dict[int, Optional[int]]:
        statuses: Dict[int, Optional[int]] = {}
        for event, *details in self.events():
            if event in ("forked", "ended"):
                statuses[int(details[0])] = int(details[1]) if event == "ended" else None
        return statuses

    def pids(self, target: str) -> List[int]:
        """The processes that a target names: arbiter, worker (one), workers, or all, as killall would."""
        workers = self.workers()
        pids = {"arbiter": [self.arbiter], "worker": workers[:1], "workers": workers, "all": [self.arbiter, *workers]}
        return pids[target]

    def reached_by(self, target: str) -> List[int]:
        """The processes that a signal to the target reaches: the arbiter passes it on."""
        return self.pids("all" if target == "arbiter" else target)

    def signal(self, target: str, number: int = signal.SIGUSR1, times: int = 1) -> None:
        for _ in range(times):
            send(self.pids(target), number)

    def deaths(self) -> List[str]:
        """The workers that have ended, and how, in words."""
        return [f"worker {pid} {describe(status)}" for pid, status in self.exits().items()]

    def exit_of(self, pid: int) -> str:
        """Wait for a worker to end; how it did, in words."""
        wait.until(lambda: pid in self.exits(), lambda: f"a worker did not end within {wait.PATIENCE:g} s", harm=KILLS)
        return describe(self.exits()[pid])

    # Places and moments

    @contextlib.contextmanager
    def hold(self, place: str) -> Iterator[Hold]:
        """Make processes that come to a place of served/checkpoints.py wait there, until the block ends."""
        hold = Hold(self, place)
        hold.file.touch()
        try:
            yield hold
        finally:
            if hold.file.exists():
                hold.release()

    @contextlib.contextmanager
    def booting(self, place: str = "post_fork") -> Iterator[int]:
        """Kill the workers, and make the next ones wait at a place while they boot; the process id of the first."""
        with self.hold(place) as hold:
            self.signal("workers", signal.SIGKILL)
            yield hold.reached()

    def wait_until_serving(self, patience: float = wait.PATIENCE) -> None:
        """Wait until there are as many workers as there should be, and each has started its application."""

        def serving() -> bool:
            expect(self.process.poll() is None, lambda: f"Gunicorn ended: {self.last_words()}", KILLS)
            started = {int(details[0]) for event, *details in self.events() if event == "started"}
            return len(self.workers()) == self.worker_count and started.issuperset(self.workers())

        def missing() -> str:
            up = f"{len(self.workers())} of {self.worker_count}"
            return f"only {up} workers came up within {patience:g} s: {self.last_words()}"

        wait.until(serving, missing, patience, KILLS)

    def wait_until_reopened(self, pids: Collection[int]) -> None:
        """Wait until none of these processes has a rotated file open any more: seconds, where it takes milliseconds."""
        files = self.logs.rotated()
        self.reopening.until(
            lambda: not self.logs.held(pids, files),
            lambda: f"{self.logs.holders(pids)} {self.reopening} after SIGUSR1",
        )

    def rotate(
        self, names: Iterable[str] = NAMES, target: str = "arbiter", times: int = 1, create: bool = False
    ) -> None:
        """Rotate logs, tell a target of it, and wait until all whom that reaches have reopened them."""
        self.logs.rotate(names, create)
        self.signal(target, times=times)
        self.wait_until_reopened(self.reached_by(target))

    def get(self, kind: str = "async") -> str:
        """One request on a new connection; its name."""
        request = new_request()
        with Client(self.socket) as client:
            client.get(kind, request)
        return request

    # What it says

    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def complaints(self) -> str:
        return self.stderr() + "\n".join(self.logs.lines("error.log")[-30:])

    def last_words(self) -> str:
        """The last exception, or else the last thing that it complained of."""
        said = self.complaints().splitlines()[::-1]
        told = (line for kind in (EXCEPTION, COMPLAINT) for line in said if kind.search(line))
        return next(told, "it does not say why")

    # What a test expects of it

    def expect_no_deaths(self, when: str) -> None:
        """No worker has ended but by itself, or by SIGKILL, which only tests send."""
        _expect_none(when, (status for status in self.exits().values() if status not in (0, signal.SIGKILL)))

    def expect_same_workers(self, workers: Sequence[int], when: str) -> None:
        """These workers are still there, and no others."""
        more = len(set(self.workers()) - set(workers))
        _expect_none(when, (status for pid, status in self.exits().items() if pid in workers))
        expect(not more, lambda: f"{count(more, 'worker')} more than before {when}", KILLS)

    def expect_silence(self, stderr: str, when: str) -> None:
        said = self.stderr()[len(stderr) :].splitlines()
        telling = [*filter(EXCEPTION.match, said), *said]  # What an exception is, if there is one
        expect(not said, lambda: f"{count(len(said), 'line')} on stderr {when}, such as {telling[0]!r}", COMPLAINS)


def _expect_none(when: str, statuses: Iterable[int]) -> None:
    """Raises Broken with, say, "37 workers killed by SIGUSR1, 1 worker exited with 3 under load"."""
    deaths = collections.Counter(map(describe, statuses))
    words = ", ".join(f"{count(number, 'worker')} {how}" for how, number in sorted(deaths.items()))
    expect(not deaths, f"{words} {when}", KILLS)


def send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def describe(status: int) -> str:
    """A waitpid() status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with {os.WEXITSTATUS(status)}"
