"""Every statement of a patch is there for a reason: without it some check fails, and so with what is tempting."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Sequence, Tuple

import environments
import pytest
import whatthepatch
from environments import GUNICORN, UVICORN, Environment
from properties import run as properties
from properties.environment import ASGI, GTHREAD, SYNC
from properties.server import Server
from properties.test_exit import end_worker
from test_gunicorn import test_gunicorn
from test_gunicorn.test_gunicorn import Gunicorn, pristine_environment, python
from test_interruptions.test_boundaries import FIRST_LINE, SWEEPS, sweep, withstands
from test_load import print_whole_lines
from usr1 import patches
from usr1.patches import Part
from usr1.upkeep import refresh

SHARES = 20

#: Raises if it finds something wrong in an environment.
Check = Callable[[Environment], None]


def sweeps(worker_class: str, *names: str) -> Check:
    """A signal in one of 71 parts of all places, the one of the default run: enough to find a wrong statement."""
    return lambda environment: sweep(environment, worker_class, names, part=7, parts=71, patience=60)


def life(worker_class: str, ended: int, *options: str) -> Check:
    """A signal everywhere in a worker's life; SIGTERM ends it with this exit status."""
    return lambda environment: withstands(environment, worker_class, ended, *options)


def promises(*arguments: str) -> Check:
    """The properties, to the first that does not hold."""

    def check(environment: Environment) -> None:
        status, output = properties.run(environment.path, "--exitfirst", "--tb=no", *arguments)
        assert status == 0, output

    return check


def closes_sockets_once(environment: Environment) -> None:
    with Server(environment.python, UVICORN, 1) as server:
        end_worker(server, signal.SIGTERM)
        assert "Error while closing socket" not in server.complaints()


def gunicorns(test: Callable[..., None], *arguments: object) -> Check:
    return lambda environment: test(Gunicorn(GUNICORN, environment), *arguments)


def serving(worker_class: str, test: Callable[[Server], None], *options: str) -> Check:
    def check(environment: Environment) -> None:
        with Gunicorn(GUNICORN, environment).serve(worker_class, *options) as server:
            test(server)

    return check


FAILING_IN_A_LINE = gunicorns(test_gunicorn.test_one_that_fails_in_a_line)
#: The quickest first
CHECKS_OF_UVICORN: Sequence[Check] = (
    closes_sockets_once,
    sweeps(UVICORN, *SWEEPS),
    life(UVICORN, signal.SIGTERM),
    serving(UVICORN, test_gunicorn.test_a_log_that_was_not_rotated),
    serving(UVICORN, test_gunicorn.test_reload),
    serving(UVICORN, print_whole_lines, "--capture-output"),
    promises(),
)
CHECKS_OF_GUNICORN: Sequence[Check] = (
    sweeps(SYNC, *SWEEPS, FIRST_LINE),
    life(GTHREAD, 0, "--capture-output"),
    gunicorns(test_gunicorn.test_one_that_fails, ()),
    FAILING_IN_A_LINE,
    gunicorns(test_gunicorn.test_a_line_in_a_file_that_begins_with_a_mark),
    serving("gthread", test_gunicorn.test_a_log_that_was_not_rotated),
    gunicorns(test_gunicorn.test_files_that_no_logger_has),
    *(serving(worker_class, test_gunicorn.test_reload) for worker_class in ("sync", "gthread", "asgi")),
    serving("sync", print_whole_lines, "--capture-output"),
    gunicorns(test_gunicorn.test_dirty_workers),
    gunicorns(test_gunicorn.test_forked_with_files_that_were_rotated, "sync"),
    gunicorns(test_gunicorn.test_exit, "asgi"),
    gunicorns(test_gunicorn.test_an_event_loop_closes),
    gunicorns(test_gunicorn.test_an_event_loop_was_closed),
    serving("aiohttp.GunicornWebWorker", test_gunicorn.test_blocked),
    life(ASGI, 0, "--capture-output"),
    gunicorns(test_gunicorn.test_closed_stream_and_one_without_descriptor),
    promises(),
)


class Mutant(NamedTuple):
    name: str  # The file, the line, and what is in it
    target: str  # The file, as RECORD names it
    source: str


def without_a_statement(part: Part, patched: str) -> Iterator[Mutant]:
    """For each statement that a patch adds to a file, docstrings aside, the file with pass in its place."""
    [diff] = whatthepatch.parse_patch(part.text)
    added = {change.new for change in diff.changes if change.old is None}
    lines = patched.splitlines(keepends=True)
    for statement in ast.walk(ast.parse(patched)):
        if not isinstance(statement, ast.stmt) or statement.lineno not in added or does_nothing(statement):
            continue
        text = lines[statement.lineno - 1]
        indent = text[: len(text) - len(text.lstrip())]
        instead = f"{indent}else:\n{indent}    pass\n" if text.lstrip().startswith("elif ") else f"{indent}pass\n"
        source = "".join([*lines[: statement.lineno - 1], instead, *lines[statement.end_lineno :]])
        yield Mutant(f"{part.target}:{statement.lineno}: {text.strip()}", part.target, source)


def does_nothing(statement: ast.stmt) -> bool:
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_docstring or isinstance(statement, ast.Pass)


def has_undefined_names(source: str) -> bool:
    """Such mutants are left out. ruff finds them, even if only an annotation has the name, which no run would."""
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--quiet", "--select", "F821", "-"]
    return subprocess.run(ruff, input=source, stdout=subprocess.DEVNULL, text=True).returncode != 0


class Laboratory:
    """An environment with the newest patch of a distribution, one file of which is changed at a time."""

    def __init__(self, distribution: str) -> None:
        self.patch = refresh.newest(distribution, patches.catalogue(distribution))
        self.checks, original = CHECKS_OF_UVICORN, pristine_environment(GUNICORN)
        if distribution == "gunicorn":  # Beside uvicorn, its classes are tested only if its files are as patched
            original = environments.cached(python(GUNICORN), f"gunicorn=={GUNICORN}", "aiohttp", "gevent", "uvloop")
            self.checks = CHECKS_OF_GUNICORN
        os.environ["USR1_UNPATCHED"] = str(original.site_packages)
        self.environment = environments.patched_until_exit(original, f"{distribution} {self.patch.releases[-1]}")

    def file(self, target: str) -> Path:
        return self.environment.site_packages / target

    def mutants(self) -> List[Mutant]:
        every = [without_a_statement(part, self.file(part.target).read_text()) for part in self.patch.parts]
        return [mutant for mutants in every for mutant in mutants if not has_undefined_names(mutant.source)]

    def found(self, target: str, source: str, by: Sequence[Check]) -> str:
        """What the first check says that finds something wrong with this source in the place of a file."""
        file = self.file(target)
        patched = file.read_text()
        file.write_text(source)
        try:
            for check in by:
                check(self.environment)
        except Exception as error:
            return repr(error)[:300]
        finally:
            file.write_text(patched)
        return ""


@pytest.mark.full
@pytest.mark.parametrize("distribution", ["uvicorn", "gunicorn"])
def test_nothing_is_found_in_the_patch(distribution: str) -> None:
    laboratory = Laboratory(distribution)
    target = laboratory.patch.parts[0].target
    assert laboratory.found(target, laboratory.file(target).read_text(), laboratory.checks) == ""


@pytest.mark.full
@pytest.mark.parametrize("distribution", ["uvicorn", "gunicorn"])
@pytest.mark.parametrize("share", range(SHARES))
def test_a_statement_left_out_is_missed(distribution: str, share: int) -> None:
    laboratory = Laboratory(distribution)
    wanted = laboratory.mutants()[share::SHARES]
    checks = laboratory.checks
    assert [mutant.name for mutant in wanted if not laboratory.found(mutant.target, mutant.source, checks)] == []


def swapped(first: str, second: str) -> Tuple[str, str]:
    """Two lines of a loop, and these in the other order."""
    between = "\n" + 12 * " "
    return first + between + second, second + between + first


DUP2 = "os.dup2(new.fileno(), old.fileno(), inheritable=False)"
UPSTREAMS = "handler.close(); handler.stream = handler._open()"
IN_THE_LOOP = "asyncio.get_event_loop().call_soon_threadsafe(self._reopen_files, sig, frame)\n"
IS_OURS = 'is_ours(e, getattr(h, "baseFilename", ""))'
REPORT = "_thread.start_new_thread(self._report, (failed,))"
SOCKETS = '[getattr(s, "sock", s) for s in self.sockets]'
NOT_THE_APPLICATIONS = "isinstance(signal.getsignal(signal.SIGUSR1), signal.Handlers)"

#: Each: a name, a text that the patched file has once, what might be written instead, and the check that finds that
#: wanting. swapped() gives the two texts.
TEMPTATIONS_IN_WORKERS = (
    ("reopening as upstream does", DUP2, UPSTREAMS, sweeps(UVICORN, "in_the_handler")),
    ("waiting for a lock", "acquire(blocking=False)", "acquire()", sweeps(UVICORN, "beside_a_thread")),
    ("one look", *swapped("seen = self._asked", "self._reopen_files(sig, frame)"), sweeps(UVICORN, "in_the_handler")),
    ("reopening in the event loop", "self._reopen_files(sig, frame)\n", IN_THE_LOOP, promises("-k", "blocked_loop")),
    ("nesting in a storm", "_reopening = seen != self._asked", "_reopening = False", sweeps(UVICORN, "burst")),
    ("SIG_DFL for an instant", "set(self.SIGNALS) - {signal.SIGUSR1}", "self.SIGNALS", life(UVICORN, signal.SIGTERM)),
    ("the signal from whoever has it", NOT_THE_APPLICATIONS, "True", promises()),
    ("Gunicorn's sockets", SOCKETS, "self.sockets", closes_sockets_once),
)
#: The same for Gunicorn. Nothing of reopen() is here: its text is the same in both patches, and tried above.
TEMPTATIONS_IN_GLOGGING = (
    ("one look", *swapped("seen = Logger._asked", "self._reopen_all(plain_only)"), sweeps(SYNC, "in_the_handler")),
    ("nesting in a storm", "_reopening = seen != Logger._asked", "_reopening = False", sweeps(SYNC, "burst")),
    ("reporting in the handler", REPORT, "self._report(failed)", FAILING_IN_A_LINE),
    ("any exception for a failed log", IS_OURS, "True", sweeps(SYNC, "exception")),
)
TEMPTATIONS = {"uvicorn/workers.py": TEMPTATIONS_IN_WORKERS, "gunicorn/glogging.py": TEMPTATIONS_IN_GLOGGING}
BY_DEFAULT = ("uvicorn: waiting for a lock", "gunicorn: one look")


def temptations() -> Iterator[Any]:
    for target, some in TEMPTATIONS.items():
        for name, *temptation in some:
            title = f"{target.partition('/')[0]}: {name}"
            marks = [pytest.mark.full] * (title not in BY_DEFAULT)
            yield pytest.param(target, *temptation, id=title, marks=marks)


@pytest.mark.parametrize("target", TEMPTATIONS)
def test_temptations_are_of_the_newest_patch(target: str) -> None:
    """By default, too: most are tried only with --full."""
    patched = Laboratory(target.partition("/")[0]).file(target).read_text()
    assert set(BY_DEFAULT) <= {parameters.id for parameters in temptations()}
    assert [name for name, old, *_ in TEMPTATIONS[target] if patched.count(old) != 1] == []


@pytest.mark.parametrize("target, old, new, check", temptations())
def test_a_temptation_is_found_wanting(target: str, old: str, new: str, check: Check) -> None:
    laboratory = Laboratory(target.partition("/")[0])
    patched = laboratory.file(target).read_text()
    assert laboratory.found(target, patched.replace(old, new), [check])
