"""Every statement of a patch is there for a reason: without it a named check fails."""

import re
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import environments
import pytest
from environments import Workers
from interruptions.run import environment
from packaging.version import Version as Release
from usr1 import patches

from mutations import killers, mutants

#: Which check misses a statement, by WHERE: STATEMENT. Names that ruff finds undefined are not listed.
MISSED_BY: Dict[str, List[str]] = {
    "before init_signals": [
        r"reopen_if_rotated: ",
        r"WorkerServer: def ",
        r"__init__: ",
        r"capture_signals: ",
        r"install_signal_handlers: ",
        r"UvicornWorker: (?!_usr1_loop)",
        r"capture_usr1: self\._reopen_logs",
        r"_reopen_logs: (try|if self|elif|self\._reopen_rotated_logs)",
        r"_reopen_rotated_logs: (?!handler\.release)",
        r"init_signals: atexit",
    ],
    "while the application loads": [
        r"UvicornWorker: _usr1_loop",
        r"init_signals: self\._install_sigusr1_handler",
        r"_install_sigusr1_handler: signal\.signal",
        r"_defer_usr1: self\._usr1_pending = True",
        r"_reopen_logs: self\.handle_usr1",
    ],
    "in the emission of a record": [r"_defer_usr1: (elif|loop\.call_soon_threadsafe)"],
    "between two runs of the loop": [r"capture_usr1: self\._usr1_loop"],
    "burst": [r"_reopen_logs: self\._usr1_pending = False"],
    "test_extended_handler": [r"_reopen_rotated_logs: handler\.release"],
    "test_failing_reopening": [r"_reopen_logs: self\.log\.exception"],
    "test_forked_process": [r"_defer_usr1: (if self\.pid|_thread)"],
    "in the emission, handled as reported": [r"capture_usr1: (if signal|self\._install_sigusr1_handler)"],
    "test_system_calls": [r"_install_sigusr1_handler: signal\.siginterrupt"],
    "inherited handlers": [r"init_signals: for"],
}

#: What might be tempting instead: what, with what, and the check that finds it wanting.
TEMPTATIONS: Dict[str, Tuple[str, str, str]] = {
    "reopening in the signal handler": (
        "loop.call_soon_threadsafe(self._reopen_logs)",
        "self._reopen_logs()",
        "in the emission of a record",
    ),
    "SIG_DFL for an instant": ("set(self.SIGNALS) - {signal.SIGUSR1}", "self.SIGNALS", "storm"),
    "a closed loop": (" and not loop.is_closed()", "", "after the loop closed"),
    "reopening everything at boot": ("self._reopen_rotated_logs()", "self.log.reopen_files()", "test_preloaded"),
    "the name of a handler": ("stream.name", "handler.baseFilename", "test_own_files"),
    "any logfile": ("if self.cfg.capture_output and logfile", "if logfile", "test_extended_handler"),
    "the signal from whoever has it": (" in (self.handle_usr1, signal.SIG_IGN)", " is not None", "test_own_handler"),
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
        [self.file] = self.environment.path.glob(f"lib/python3.*/site-packages/{patch.target}")
        self.patched = self.file.read_text()

    def __enter__(self) -> "Laboratory":
        return self

    def __exit__(self, *exception: object) -> None:
        self._put(self.patched)

    def mutants(self) -> List[mutants.Mutant]:
        """Those with no name undefined: ruff finds the others."""
        copy = self.home / "workers.py"
        found = []
        for mutant in mutants.without_a_statement(self.patch, self.patched, self.unused):
            copy.write_text(mutant.source)
            if not killers.undefined_names(copy):
                found.append(mutant)
        return found

    def survives(self, source: str, killer: str) -> bool:
        self._put(source)
        with tempfile.TemporaryDirectory(dir=self.home) as home:
            return not killers.KILLERS[killer](self.environment, Path(home))

    def _put(self, source: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(source)
        new.replace(self.file)


VARIANTS = environments.variants(f"uvicorn {environments.COMBINATIONS[-1]}")


def cases(places: Dict[str, str]) -> list:
    """For each variant the names of those of whose places there is one in the patch."""
    found = []
    for variant in VARIANTS:
        [workers] = variant.values
        text = patches.find(workers.distribution, workers.release).text
        found += [
            pytest.param(workers, name, id=f"{variant.id}-{name}", marks=variant.marks)
            for name, place in places.items()
            if place in text
        ]
    return found


@pytest.fixture
def laboratory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Laboratory]:
    with Laboratory(request.param, tmp_path) as laboratory:
        yield laboratory


def missed_by(mutant: mutants.Mutant) -> List[str]:
    return [killer for killer, patterns in MISSED_BY.items() for p in patterns if re.match(p, str(mutant))]


@pytest.mark.parametrize("laboratory", VARIANTS, indirect=True)
def test_each_statement_has_its_check(laboratory: Laboratory) -> None:
    assert [str(mutant) for mutant in laboratory.mutants() if len(missed_by(mutant)) != 1] == []


#: Only patches of releases that reset signals leave none to the arbiter's handlers.
ONLY_WITH = {"inherited handlers": "self.SIGNALS"}


@pytest.mark.parametrize(
    ("laboratory", "killer"),
    cases({name: ONLY_WITH.get(name, "") for name in killers.KILLERS}),
    indirect=["laboratory"],
)
def test_the_check_passes_on_the_patch(laboratory: Laboratory, killer: str) -> None:
    assert laboratory.survives(laboratory.patched, killer)


@pytest.mark.parametrize("laboratory", VARIANTS, indirect=True)
@pytest.mark.parametrize("killer", MISSED_BY)
def test_a_statement_left_out_is_missed(killer: str, laboratory: Laboratory, pytestconfig: pytest.Config) -> None:
    """One statement for each check by default; all of them with --full."""
    missing = [mutant for mutant in laboratory.mutants() if missed_by(mutant) == [killer]]
    if not pytestconfig.getoption("--full"):
        missing = missing[:1]
    assert [str(mutant) for mutant in missing if laboratory.survives(mutant.source, killer)] == []


@pytest.mark.parametrize(
    ("laboratory", "temptation"),
    cases({name: old for name, (old, _, _) in TEMPTATIONS.items()}),
    indirect=["laboratory"],
)
def test_a_temptation_is_found_wanting(laboratory: Laboratory, temptation: str) -> None:
    old, new, killer = TEMPTATIONS[temptation]
    assert not laboratory.survives(mutants.replaced(laboratory.patched, old, new), killer)
