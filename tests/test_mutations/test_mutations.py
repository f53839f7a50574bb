"""Every statement of a patch is there for a reason: without it some check fails, and so with what is tempting."""

import re
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Sequence

import environments
import pytest
from properties.environment import SYNC
from test_gunicorn.conftest import NEWEST as GUNICORN
from test_gunicorn.conftest import pristine_environment
from usr1 import patches

from test_mutations import checks, mutants
from test_mutations.checks import Check

#: No check misses these: FILE: WHERE: STATEMENT, and why.
EQUIVALENT: Dict[str, str] = {}

UVICORN = environments.COMBINATIONS[-1]
SHARES = 20


class Laboratory:
    """An environment with the newest patch of a distribution, one file of which is changed at a time."""

    def __init__(self, distribution: str, home: Path) -> None:
        release = {"uvicorn": UVICORN, "gunicorn": GUNICORN}[distribution]
        patch = patches.find(distribution, release)
        assert patch is not None
        original = pristine_environment(GUNICORN)
        self.environment = environments.patched_copy(original, home / "venv", distribution, release)
        self.parts = {part.target: part for part in patch.parts}
        self.checks = {"uvicorn": checks.OF_UVICORN, "gunicorn": checks.OF_GUNICORN}[distribution]

    def file(self, target: str) -> Path:
        [file] = self.environment.path.glob(f"lib/python3.*/site-packages/{target}")
        return file

    def mutants(self) -> Iterator[mutants.Mutant]:
        """But for those that ruff finds a name undefined in."""
        for target, part in self.parts.items():
            for mutant in mutants.without_a_statement(part, self.file(target).read_text()):
                if not mutants.has_undefined_names(mutant.source):
                    yield mutant

    def found(self, target: str, source: str, by: Sequence[Check]) -> str:
        """What is found wrong with this source in the place of a file."""
        file = self.file(target)
        patched = file.read_text()
        try:
            file.write_text(source)
            return checks.found(by, self.environment)
        finally:
            file.write_text(patched)


@pytest.fixture(scope="module")
def laboratories(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Laboratory]:
    return {name: Laboratory(name, tmp_path_factory.mktemp(name)) for name in ("uvicorn", "gunicorn")}


@pytest.mark.full
@pytest.mark.parametrize("distribution", ["uvicorn", "gunicorn"])
def test_nothing_is_found_in_the_patch(laboratories: Dict[str, Laboratory], distribution: str) -> None:
    laboratory = laboratories[distribution]
    assert checks.found(laboratory.checks, laboratory.environment) == ""


def is_equivalent(mutant: mutants.Mutant) -> bool:
    return any(re.match(pattern, str(mutant)) for pattern in EQUIVALENT)


@pytest.mark.full
@pytest.mark.parametrize("distribution", ["uvicorn", "gunicorn"])
@pytest.mark.parametrize("share", range(SHARES))
def test_a_statement_left_out_is_missed(laboratories: Dict[str, Laboratory], distribution: str, share: int) -> None:
    laboratory = laboratories[distribution]
    wanted = [mutant for mutant in laboratory.mutants() if not is_equivalent(mutant)][share::SHARES]
    found = {str(mutant): laboratory.found(mutant.target, mutant.source, laboratory.checks) for mutant in wanted}
    print(*(f"{mutant}\n    {what}" for mutant, what in found.items()), sep="\n")
    assert [mutant for mutant, what in found.items() if not what] == []


class Temptation(NamedTuple):
    """What might be written instead, and the check that finds it wanting."""

    target: str
    old: str
    new: str
    check: Check


#: In the newest patches.
TEMPTATIONS: Dict[str, Temptation] = {
    "uvicorn: reopening as upstream does": Temptation(
        "uvicorn/workers.py",
        "os.dup2(new.fileno(), old.fileno(), inheritable=False)",
        "handler.close(); handler.stream = handler._open()",
        checks.sweeps(checks.UVICORN, "in_the_handler"),
    ),
    "uvicorn: reopening in the event loop": Temptation(
        "uvicorn/workers.py",
        "self.reopen_files(sig, frame)\n",
        "asyncio.get_event_loop().call_soon_threadsafe(self.reopen_files, sig, frame)\n",
        checks.promises("-k", "blocked_loop"),
    ),
    "uvicorn: waiting for a lock": Temptation(
        "uvicorn/workers.py",
        "lock.acquire(blocking=False)",
        "lock.acquire()",
        checks.sweeps(checks.UVICORN, "beside_a_thread"),
    ),
    "uvicorn: one look": Temptation(
        "uvicorn/workers.py",
        "seen = self._asked\n                self.reopen_files(sig, frame)",
        "self.reopen_files(sig, frame)\n                seen = self._asked",
        checks.sweeps(checks.UVICORN, "in_the_handler"),
    ),
    "uvicorn: SIG_DFL for an instant": Temptation(
        "uvicorn/workers.py", "set(self.SIGNALS) - {signal.SIGUSR1}", "self.SIGNALS", checks.life(checks.UVICORN, 15)
    ),
    "uvicorn: the signal from whoever has it": Temptation(
        "uvicorn/workers.py", "isinstance(signal.getsignal(signal.SIGUSR1), signal.Handlers)", "True", checks.promises()
    ),
    "uvicorn: Gunicorn's sockets": Temptation(
        "uvicorn/workers.py",
        '[getattr(s, "sock", s) for s in self.sockets]',
        "self.sockets",
        checks.promises(),
    ),
    "gunicorn: reopening as upstream does": Temptation(
        "gunicorn/glogging.py",
        "os.dup2(new.fileno(), old.fileno(), inheritable=False)",
        "handler.close(); handler.stream = handler._open()",
        checks.sweeps(SYNC, "in_the_handler"),
    ),
    "gunicorn: waiting for a lock": Temptation(
        "gunicorn/glogging.py",
        "lock.acquire(blocking=False)",
        "lock.acquire()",
        checks.sweeps(SYNC, "beside_a_thread"),
    ),
    "gunicorn: one look": Temptation(
        "gunicorn/glogging.py",
        "seen = Logger.asked\n                self.reopen_all()",
        "self.reopen_all()\n                seen = Logger.asked",
        checks.sweeps(SYNC, "in_the_handler"),
    ),
    "gunicorn: telling at once": Temptation(
        "gunicorn/glogging.py",
        "_thread.start_new_thread(self.report, (failed,))",
        "self.report(failed)",
        checks.promises(),
    ),
    "gunicorn: any timeout for a failure": Temptation(
        "gunicorn/glogging.py",
        'if not is_ours(e, getattr(h, "baseFilename", "")):\n                raise\n            done[key]',
        "done[key]",
        checks.sweeps(SYNC, "exception"),
    ),
}
BY_DEFAULT = ("uvicorn: waiting for a lock", "gunicorn: one look")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in BY_DEFAULT else [pytest.mark.full]) for n in TEMPTATIONS]
)
def test_a_temptation_is_found_wanting(laboratories: Dict[str, Laboratory], name: str) -> None:
    temptation = TEMPTATIONS[name]
    laboratory = laboratories[name.partition(":")[0]]
    patched = laboratory.file(temptation.target).read_text()
    assert patched.count(temptation.old) == 1, f"{temptation.old!r} is not in the patched file once"
    source = patched.replace(temptation.old, temptation.new)
    assert laboratory.found(temptation.target, source, [temptation.check])
