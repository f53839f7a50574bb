"""Signals at every bytecode boundary of a log write, and of the signal handler itself: served/sweeps.py."""

from typing import List, Mapping, Sequence

import pytest
from environments import Environment
from properties import wait
from properties.expect import expect
from properties.server import Server

from test_interruptions.subjects import NEWEST, SERVED, SUBJECTS, environment, subjects

SWEEPS = ("in_a_log_write", "beside_a_thread", "in_the_handler", "in_a_look", "burst", "exception", "recursion", "fork")
FIRST_LINE = "in_a_first_line"  # Uvicorn's patch alone has nobody to look after it


def swept(
    target: Environment,
    worker_class: str,
    sweeps: Sequence[str],
    part: int,
    parts: int,
    patience: float = 600,
    variables: Mapping[str, str] = {},
    modules: Mapping[str, str] = {},
) -> List[str]:
    """What is wrong after one of so many parts of these sweeps."""
    sources = {"application": (SERVED / "sweeps.py").read_text(), "shots": (SERVED / "shots.py").read_text()}
    modules = {**sources, "wsgi": "from application import app", **modules}
    variables = {"SWEEPS": " ".join(sweeps), "PART": str(part), "PARTS": str(parts), **variables}
    with Server(target.python, worker_class, 1, ["--capture-output"], variables, modules) as server:

        def done() -> int:
            expect(not server.exits() and server.process.poll() is None, server.last_words)
            return server.times("done")

        wait.until(done, lambda: f"not done: {server.events()}", patience)
        print([words for words in server.events() if words[0] == "swept"])
        failed = [" ".join(words[1:]) for words in server.events() if words[0] == "failed"]
        return failed + [line for line in server.logs.lines("error.log") if "[INFO]" not in line]


def sweeps_of(patched: Sequence[str]) -> List[str]:
    return [*SWEEPS, *[FIRST_LINE] * ("gunicorn" in patched)]


@subjects("sync", "uvloop")
def test_a_sample(subject: str) -> None:
    worker_class, patched = SUBJECTS[subject]
    assert swept(environment(NEWEST, *patched), worker_class, sweeps_of(patched), 7, 71) == []


@pytest.mark.full
@subjects(*SUBJECTS)
@pytest.mark.parametrize("part", range(10))
def test_all(subject: str, part: int) -> None:
    worker_class, patched = SUBJECTS[subject]
    assert swept(environment(NEWEST, *patched), worker_class, sweeps_of(patched), part, 10) == []


@pytest.mark.parametrize(
    ("sweep", "harm"),
    [
        ("in_a_log_write", "reentrant call inside"),
        pytest.param("beside_a_thread", r"the handler took [45]", marks=pytest.mark.full),
        pytest.param("in_the_handler", "not done", marks=pytest.mark.full),  # It waits for a lock that it holds itself
    ],
)
def test_it_finds_what_the_published_release_does(sweep: str, harm: str) -> None:
    with pytest.raises(AssertionError, match=harm):
        raise AssertionError(swept(environment(NEWEST), "uvicorn.workers.UvicornWorker", [sweep], 0, 5, patience=20))
