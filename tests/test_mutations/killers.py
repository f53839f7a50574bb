"""The checks that a mutant of a patch must fail: what each finds, an empty list if nothing."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List

from environments import Environment
from test_interruptions.run import Run

from test_mutations.scenarios import inherited, scenario

PATIENCE = 20.0  # seconds, for what takes a second

WRITING = "/logging/__init__.py:flush$"
SERVING = "/application.py:app$"

Killer = Callable[[Environment, Path], List[str]]


def undefined_names(workers_py: Path) -> List[str]:
    """By ruff: a name that only annotations use is missed by no run."""
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--select", "F821", str(workers_py)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return answer.stdout.splitlines() if answer.returncode else []


def interruption(
    phases: str, scope: str, environment: Environment, home: Path, worker: str = "asyncio", shots: str = "one"
) -> List[str]:
    """Signals in two requests, or in the boot or the end of a worker, at boundaries in scope."""
    return _complaints(Run(home, environment, worker, shots, 2, phases, scope, ["--capture-output"], PATIENCE))


def storm(environment: Environment, home: Path) -> List[str]:
    """A signal at every boundary."""
    return _complaints(Run(home, environment, "asyncio", "storm", 2, patience=PATIENCE))


def burst(environment: Environment, home: Path) -> List[str]:
    """Thousands of signals at once: threads honour many at a time, and handlers are not nested too deeply."""
    run = Run(
        home,
        environment,
        "customised_worker.CountingOnAsyncio",
        "burst",
        5,
        "serving",
        f"{WRITING}|{SERVING}",
        (),
        PATIENCE,
    )
    complaints = _complaints(run)
    counts = [report for report in run.reports() if "counted" in report and report["fired"]]
    # How many find a thread that is about to start depends on the machine; without a look at that, none does
    return complaints + [str(count) for count in counts if count["threads"] * 10 > count["handled"] * 9]


def undisturbed(environment: Environment, home: Path) -> List[str]:
    """Without a SIGUSR1; the first worker ends by itself, the second by SIGTERM."""
    return _complaints(Run(home, environment, "asyncio", "one", 2, "none", "none", patience=PATIENCE))


def inherited_handlers(environment: Environment, home: Path) -> List[str]:
    """The signals that the worker leaves to the arbiter's handlers, which swallow them."""
    run = Run(home, environment, "asyncio", "one", 1, "none", "none", patience=PATIENCE)
    _complaints(run)
    return [str(report) for report in run.reports() if report.get("inherited")]


def _complaints(run: Run) -> List[str]:
    try:
        with run:
            run.life()
            outcome = run.stop()
    except AssertionError as error:  # It does not come up, or does not end
        return [str(error)]
    died = [f"a worker ended with {status}" for status in outcome.statuses[:1] if status]
    return outcome.complaints() + died


KILLERS: Dict[str, Killer] = {
    "undisturbed": undisturbed,
    "inherited handlers": inherited_handlers,
    "before init_signals": partial(interruption, "boot", ":init_process$"),
    "in init_signals": partial(interruption, "boot", ":init_signals$", shots="each"),
    "in a log write": partial(interruption, "serving", WRITING, shots="each"),
    "on the way out": partial(interruption, "closing", "/gunicorn/arbiter.py:"),
    "while uvloop's server ends": partial(
        interruption, "closing", "/uvicorn/(server|main).py:shutdown$", worker="uvloop", shots="each"
    ),
    "burst": burst,
    "storm": storm,
    "boot": partial(scenario, "boot"),
    "blocked loop": partial(scenario, "blocked_loop"),
    "after a call of C": partial(scenario, "after_a_call"),
    "no longer than needed": partial(scenario, "no_longer_than_needed"),
    "in getLogger()": partial(scenario, "in_get_logger"),
    "in the root's write": partial(scenario, "in_the_roots_write"),
    "forked process": partial(scenario, "forked"),
    "forked in between": partial(scenario, "forked_in_between"),
    "forked, with a log of the arbiter's": partial(scenario, "forked_with_inherited"),
    "no thread": partial(scenario, "no_thread"),
    "a log that cannot be opened": partial(scenario, "unopenable"),
    "logs that cannot be opened, and pairs of signals": partial(scenario, "pairs"),
    "a log of the arbiter's that cannot be opened": inherited,
    "the application ignores the signal": partial(scenario, "after_a_call", on_load="ignore"),
    "the application resets the signal": partial(scenario, "blocked_loop", on_load="default"),
    "the application handles the signal": partial(scenario, "own_handler", on_load="own"),
}
