"""The checks that a mutant of a patch must fail: what each finds, an empty list if nothing."""

import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List

from environments import Environment
from interruptions.run import Run
from properties import target as targets
from properties import test_customised
from properties.conftest import Servers

Killer = Callable[[Environment, Path], List[str]]


def undefined_names(workers_py: Path) -> List[str]:
    """By ruff: a name that only annotations use is missed by no run."""
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--select", "F821", str(workers_py)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return answer.stdout.splitlines() if answer.returncode else []


def interruption(
    phases: str,
    scope: str,
    target: Environment,
    home: Path,
    requests: int = 2,
    worker: str = "asyncio",
) -> List[str]:
    """One signal in each of these phases, or in each request, at the first boundary in scope that had none."""
    return _complaints(Run(home, target, worker, "one", requests, phases, scope, ["--capture-output"]))


def storm(target: Environment, home: Path) -> List[str]:
    """A signal at every boundary."""
    return _complaints(Run(home, target, "asyncio", "storm", 5))


def burst(target: Environment, home: Path) -> List[str]:
    """Many signals between two turns of the loop, to be honoured together."""
    run = Run(home, target, "customised_worker.Counting", "storm", 2, "serving", "/logging/__init__.py:")
    complaints = _complaints(run)
    counts = [report for report in run.reports() if "counted" in report and report["fired"]]
    return complaints + [str(count) for count in counts if count["handled"] * 5 > count["fired"]]


def inherited_handlers(target: Environment, home: Path) -> List[str]:
    """The signals that the worker leaves to the arbiter's handlers, which swallow them."""
    run = Run(home, target, "asyncio", "one", 1, "none", "none")
    complaints = _complaints(run)
    return complaints + [str(report) for report in run.reports() if report.get("inherited")]


def _complaints(run: Run) -> List[str]:
    try:
        with run:
            run.life()
            outcome = run.stop()
    except AssertionError as error:  # It does not come up, or does not end
        return [str(error)]
    died = [f"a worker ended with {status}" for status in outcome.statuses[:1] if status]
    return outcome.complaints() + died


def property_test(test: Callable[..., None], environment: Environment, home: Path) -> List[str]:
    """A test of the property suite, called as pytest would."""
    target = targets.inspect(environment.path)
    servers = Servers(target)
    # The last class is one of uvicorn-worker, if it is there.
    fixtures = {"target": target, "servers": servers, "one_worker_class": target.worker_classes[-1]}
    try:
        test(**{name: fixtures[name] for name in inspect.signature(test).parameters})
    except AssertionError as error:
        return [str(error)]
    finally:
        servers.close()
    return []


EMISSION = "/logging/__init__.py:flush$"

KILLERS: Dict[str, Killer] = {
    "before init_signals": partial(interruption, "boot", ":init_process$"),
    "while the application loads": partial(interruption, "loading", "/logging/__init__.py:__init__$"),
    "in the emission of a record": partial(interruption, "serving", EMISSION, requests=60),
    "in the emission, handled as reported": partial(
        interruption, "serving", EMISSION, requests=60, worker="customised_worker.AsReported"
    ),
    "between two runs of the loop": partial(interruption, "closing", ":_cancel_all_tasks$"),
    "after the loop closed": partial(interruption, "closing", "/gunicorn/arbiter.py:"),
    "burst": burst,
    "inherited handlers": inherited_handlers,
    **{
        test.__name__: partial(property_test, test)
        for test in (
            test_customised.test_extended_handler,
            test_customised.test_failing_reopening,
            test_customised.test_forked_process,
            test_customised.test_own_files,
            test_customised.test_own_handler,
            test_customised.test_preloaded,
            test_customised.test_system_calls,
        )
    },
    "storm": storm,
}
