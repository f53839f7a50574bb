"""What an application has and does while its logs are rotated: nothing of it makes a patched server worse."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Dict

import pytest
from hypothesis import assume, given, settings

from properties.cases import Case, Play, cases, compare
from properties.environment import Environment, is_own
from properties.expect import Broken
from properties.rows import ROWS
from properties.server import Server

#: The releases of uvicorn whose workers ignore SIGUSR1 as published
IGNORING = ("0.13.0", "0.13.1", "0.13.2")


def test_rows(environment: Environment, published: Dict[str, str], row_class: str, row: str) -> None:
    """No set-up of an application makes a rotation do more harm than in the published release."""
    fails = side_by_side(environment, published, row_class, ROWS[row])
    if fails:
        pytest.skip(f"the published server does not get through it: {fails}")


@settings(max_examples=200 if settings().max_examples > 100 else 2)
@given(case=cases)
def test_drawn(environment: Environment, published: Dict[str, str], one_worker_class: str, case: Case) -> None:
    """No combination of log handlers makes a rotation do more harm than in the published release."""
    assume(not side_by_side(environment, published, one_worker_class, case))


def side_by_side(environment: Environment, published: Dict[str, str], worker_class: str, case: Case) -> str:
    """Play a case on both servers, and compare; why the published one does not get through it, if so."""
    if environment.versions.get("uvicorn") in IGNORING and not is_own(worker_class):
        pytest.skip("this uvicorn ignores the signal as published: it reopens nothing that could be compared")
    if case.user and os.geteuid() != 0:
        pytest.skip("only root can start Gunicorn with --user")
    upstreams, ours = (
        Server(environment.python, worker_class, 1, case.options, {**case.variables, **more})
        for more in (published, {})
    )
    for server in (upstreams, ours):
        server.logs.directory.chmod(case.folder)
        if case.user:
            server.let_others_in()
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:  # To start is most of what it takes
        starting = [pool.submit(stack.enter_context, server) for server in (upstreams, ours)]
        try:
            starting[0].result()
            found = Play(upstreams, case, None).found()
        except Broken as error:
            return str(error)
        starting[1].result()
        compare(Play(ours, case, found).found(), found)
    return ""
