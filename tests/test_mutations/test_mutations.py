"""Every statement of a patch is there for a reason: without it a named check fails, and so with what is tempting."""

import re
import tempfile
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Tuple

import environments
import pytest
from environments import Workers
from packaging.version import Version as Release
from test_interruptions.run import environment
from usr1 import patches

from test_mutations import killers, mutants
from test_mutations.recording import recorded, recording

#: Which check misses a statement, by WHERE: STATEMENT. Names that ruff finds undefined are not listed.
MISSED_BY: Dict[str, List[str]] = {
    "undisturbed": [
        r"(capture_signals|install_signal_handlers): (return )?super\(\)",
        r"_serve: await",
        r"run: loop",
    ],
    "inherited handlers": [r"init_signals: for"],
    "before init_signals": [
        r"WorkerServer: def ",
        r"(capture_signals|install_signal_handlers): self\.capture_usr1",
        r"(capture_\w+|install_signal_handlers): (with|if not|os\.kill)",
        r"(_serve|run): server\.worker",
    ],
    "in a log write": [r"UvicornWorker: def handle_usr1", r"init_signals: signal\.signal"],
    "on the way out": [r"init_signals: atexit"],
    "burst": [r"handle_usr1: self\._reopening_pid = os"],
    "blocked loop": [
        r"UvicornWorker: (_reopening_pid|def (_reopen_logs|init_signals))",
        r"handle_usr1: (if self|locks|writing|try|_thread)",
        r"_reopen_logs: (with|self\._reopening_pid|super)",
    ],
    "boot": [r"UvicornWorker: def file_handlers"],
    "after a call of C": [
        r"handle_usr1: reopened\.acquire",
        r"init_signals: signal\.siginterrupt",
    ],
    "no longer than needed": [r"_reopen_logs: stack\.callback\(reopened"],
    "no thread": [
        r"handle_usr1: (self\._reopening_pid, writing|for|with|handler)",
        r"file_handlers: return",
    ],
    "a log that cannot be opened": [
        r"__init__: ",
        r"_reopen_logs: (for|try|handler|self\.log|stack\.enter_context\(handler|stack\.callback\(setattr)",
    ],
    "a log of the arbiter's that cannot be opened": [
        r"_reopen_logs: (if|os\.kill)",
        r"UvicornWorker: def takes",
        r"takes",
    ],
    "the application ignores the signal": [r"\w+: (if signal\.getsignal|signal\.siginterrupt)"],
    "the application resets the signal": [r"(?!init_)\w+: signal\.signal"],
}

#: Nothing that runs misses these.
EQUIVALENT = {r"WorkerServer: worker: ": "an annotation, which upstream's type check wants"}

NEWEST = environments.uvicorn(environments.COMBINATIONS[-1])

#: What might be tempting instead: what, with what, and the check that finds it wanting. In the newest patch.
STARTED = "_thread.start_new_thread(self._reopen_logs, (reopened,))"
TEMPTATIONS: Dict[str, Tuple[str, str, str]] = {
    "reopening in the handler": (STARTED, "self._reopen_logs(reopened)", "in a log write"),
    "reopening in the event loop": (
        STARTED,
        "asyncio.get_event_loop().call_soon_threadsafe(self._reopen_logs, reopened)",
        "blocked loop",
    ),
    "no process id": ("self._reopening_pid != os.getpid()", "not self._reopening_pid", "forked in between"),
    "SIG_DFL for an instant": ("set(self.SIGNALS) - {signal.SIGUSR1}", "self.SIGNALS", "in init_signals"),
    "the signal from whoever has it": (
        " in (signal.SIG_IGN, signal.SIG_DFL)",
        " is not None",
        "the application handles the signal",
    ),
    "reopening at each boot": ("os.path.samefile(fd, name)", "False", "boot"),
    "a new file or nothing": ("os.path.exists(name) and ", "", "before init_signals"),
    "the name of a handler": ("handler.stream.name)", "handler.baseFilename)", "boot"),
    "leaving for any log": (" and id(handler) in self._inherited", "", "a log that cannot be opened"),
    "leaving for a child": ("os.getpid() == self.pid and ", "", "forked, with a log of the arbiter's"),
    "one thread beside another": (
        "with self._reopening.lock, ",
        "with ",
        "logs that cannot be opened, and pairs of signals",
    ),
    "no look at logging's own lock": ("logging._lock, ", "", "in getLogger()"),
    "no look at the root's lock": ("logging._handlerList", "()", "in the root's write"),
    "the newest stream in any case": ("new if handler.stream is old else handler.stream", "new", "no thread"),
    "leaving at once": (
        " and signal.getsignal(signal.SIGTERM)",
        "",
        "a log of the arbiter's that cannot be opened",
    ),
    "Gunicorn's sockets": ("[s.sock for s in self.sockets]", "self.sockets", "while uvloop's server ends"),
}


class Laboratory:
    """An environment for a patch's mutants, which ends as the patch would have it."""

    def __init__(self, workers: Workers, home: Path) -> None:
        patch = patches.find(workers.distribution, workers.release)
        assert patch is not None
        self.patch, self.home = patch, home
        self.environment = environment(workers)
        # A patch of uvicorn-worker may have both hooks, each for other releases of uvicorn.
        self.unused = "install_signal_handlers" if Release(workers.uvicorn) >= Release("0.29.0") else "capture_signals"
        [part] = patch.parts
        [self.file] = self.environment.path.glob(f"lib/python3.*/site-packages/{part.target}")
        self.patched = self.file.read_text()

    def __enter__(self) -> "Laboratory":
        return self

    def __exit__(self, *exception: object) -> None:
        self._put(self.patched)

    def mutants(self) -> List[mutants.Mutant]:
        """But for those that ruff finds a name undefined in, and for what the newest patch says in the same words."""
        newest = patches.find(NEWEST.distribution, NEWEST.release)
        assert newest is not None
        known = set() if self.patch == newest else mutants.added_code(newest)
        copy = self.home / "workers.py"
        found = []
        for mutant in mutants.without_a_statement(self.patch, self.patched, self.unused):
            copy.write_text(mutant.source)
            if mutants.code(mutant.statement) not in known and not killers.undefined_names(copy):
                found.append(mutant)
        return found

    def missed(self, source: str, killer: str) -> List[str]:
        """What a check finds wrong."""
        self._put(source)
        with tempfile.TemporaryDirectory(dir=self.home) as home:
            return killers.KILLERS[killer](self.environment, Path(home))

    def _put(self, source: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(source)
        new.replace(self.file)


@pytest.fixture
def laboratory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Laboratory]:
    with Laboratory(request.param, tmp_path) as laboratory:
        yield laboratory


def missed_by(mutant: mutants.Mutant) -> List[str]:
    return [killer for killer, patterns in MISSED_BY.items() for p in patterns if re.match(p, str(mutant))]


def survivors(laboratory: Laboratory, names: Iterable[str]) -> List[str]:
    """The mutants that these checks do not miss a statement in, though they should."""
    missing = [(mutant, killer) for mutant in laboratory.mutants() for killer in missed_by(mutant) if killer in names]
    return [str(mutant) for mutant, killer in missing if not laboratory.missed(mutant.source, killer)]


VARIANTS = environments.variants(str(NEWEST))
OTHERS = [pytest.param(*variant.values, id=variant.id) for variant in VARIANTS if variant.marks]


@pytest.mark.parametrize("laboratory", VARIANTS, indirect=True)
def test_each_statement_has_its_check(laboratory: Laboratory) -> None:
    found = [mutant for mutant in laboratory.mutants() if not any(re.match(p, str(mutant)) for p in EQUIVALENT)]
    assert [str(mutant) for mutant in found if len(missed_by(mutant)) != 1] == []


@pytest.mark.parametrize("laboratory", VARIANTS, indirect=True)
def test_the_checks_pass_on_the_patch_and_run_all_of_it(laboratory: Laboratory, tmp_path: Path) -> None:
    lines = mutants.statement_lines(laboratory.patch, laboratory.patched, laboratory.unused)
    source = recording(laboratory.patched, lines, tmp_path / "ran")
    found = {killer: laboratory.missed(source, killer) for killer in killers.KILLERS}
    if (
        "self.SIGNALS" not in laboratory.patched
    ):  # Upstream leaves them to the arbiter's handlers, and so does the patch
        found["inherited handlers"] = []
    assert {killer: complaints for killer, complaints in found.items() if complaints} == {}
    assert sorted(lines - recorded(tmp_path / "ran")) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", [NEWEST], ids=str, indirect=True)
@pytest.mark.parametrize("killer", MISSED_BY)
def test_a_statement_left_out_is_missed(killer: str, laboratory: Laboratory) -> None:
    assert survivors(laboratory, [killer]) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", OTHERS, indirect=True)
def test_a_statement_that_only_another_patch_has_is_missed(laboratory: Laboratory) -> None:
    assert survivors(laboratory, MISSED_BY) == []


@pytest.mark.full
@pytest.mark.parametrize("laboratory", [NEWEST], ids=str, indirect=True)
@pytest.mark.parametrize("temptation", TEMPTATIONS)
def test_a_temptation_is_found_wanting(laboratory: Laboratory, temptation: str) -> None:
    old, new, killer = TEMPTATIONS[temptation]
    assert laboratory.missed(mutants.replaced(laboratory.patched, old, new), killer)
