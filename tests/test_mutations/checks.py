"""What a broken patch must fail: each raises if it finds something wrong in an environment, the quickest first."""

from typing import Callable, Sequence

from environments import GUNICORN, Environment
from properties import run as properties
from properties.environment import ASGI, GTHREAD, SYNC
from test_gunicorn import test_failures, test_rotation, test_signals
from test_gunicorn.conftest import Gunicorn
from test_interruptions.test_life import withstands
from test_interruptions.test_sweeps import FIRST_LINE, SWEEPS, swept

UVICORN = "uvicorn.workers.UvicornWorker"

Check = Callable[[Environment], None]


def sweeps(worker_class: str, *names: str) -> Check:
    def check(environment: Environment) -> None:
        assert swept(environment, worker_class, names, 7, 71, patience=60) == []

    return check


def life(worker_class: str, ended: int, *options: str) -> Check:
    return lambda environment: withstands(environment, worker_class, ended, *options)


def promises(*arguments: str) -> Check:
    """The properties, to the first that does not hold."""

    def check(environment: Environment) -> None:
        status, output = properties.run(environment.path, "--exitfirst", "--tb=no", *arguments)
        assert status == 0, output

    return check


def gunicorns(test: Callable[..., None], *arguments: object) -> Check:
    return lambda environment: test(Gunicorn(GUNICORN, environment), *arguments)


OF_UVICORN: Sequence[Check] = (
    sweeps(UVICORN, *SWEEPS),
    life(UVICORN, 15),
    promises(),
)
OF_GUNICORN: Sequence[Check] = (
    sweeps(SYNC, *SWEEPS, FIRST_LINE),
    life(GTHREAD, 0, "--capture-output"),
    gunicorns(test_failures.test_one_that_fails, "error.log", ()),
    gunicorns(test_rotation.test_files_that_no_logger_has),
    gunicorns(test_rotation.test_reload, "gthread"),
    gunicorns(test_rotation.test_dirty_workers),
    gunicorns(test_signals.test_forked_with_files_that_were_rotated, "sync"),
    gunicorns(test_signals.test_exit, "asgi"),
    gunicorns(test_rotation.test_blocked, "aiohttp.GunicornWebWorker"),
    life(ASGI, 0, "--capture-output"),
    gunicorns(test_failures.test_closed_stream_and_one_without_descriptor),
    promises(),
)


def found(checks: Sequence[Check], environment: Environment) -> str:
    """What the first check says that finds something wrong; nothing if none does."""
    for check in checks:
        try:
            check(environment)
        except Exception as error:
            return repr(error)[:300]
    return ""
