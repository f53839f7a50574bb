"""What reopening must not wait for: the event loop, as in the first revision of the patch. Two properties find it."""

from pathlib import Path

import environments
import pytest
from environments import Environment
from properties import run as properties
from properties.expect import Broken
from properties.server import Server
from properties.test_never_worse import Application, Rotation, compare
from test_mutations import mutants

UVICORN = "uvicorn.workers.UvicornWorker"
RELEASE = environments.COMBINATIONS[-1]


@pytest.fixture
def pristine() -> Environment:
    return environments.cached(environments.pythons_for(RELEASE)[-1], *environments.packages(RELEASE))


@pytest.fixture
def left_to_the_loop(pristine: Environment, tmp_path: Path) -> Environment:
    """An environment whose patch has a callback of the loop do what a thread should."""
    environment = environments.patched_copy(pristine, tmp_path / "venv", "uvicorn", RELEASE)
    [file] = environment.path.glob("lib/python3.*/site-packages/uvicorn/workers.py")
    source = file.read_text()
    for old, new in (
        ("_thread.start_new_thread(self._reopen_logs, (reopened,))",
         "asyncio.get_running_loop().call_soon_threadsafe(self._reopen_logs, reopened)"),
        ('f_code.co_name == "handle_usr1" else 1)', 'f_code.co_name == "handle_usr1" else 0)'),
    ):  # fmt: skip
        source = mutants.replaced(source, old, new)
    file.write_text(source)
    return environment


def test_the_blocked_loop(left_to_the_loop: Environment) -> None:
    status, output = properties.run(left_to_the_loop.path, "--tb=no", test="test_serving.py::test_blocked_loop")
    assert status == 1, output
    assert "lines lost while the application blocked its event loop" in output, output


def test_never_worse(left_to_the_loop: Environment, pristine: Environment) -> None:
    application = Application(("sleeping",))
    ours, upstreams = [
        Server(environment.python, UVICORN, application.workers(UVICORN))
        for environment in (left_to_the_loop, pristine)
    ]
    with pytest.raises(Broken, match="lines lost, where the pristine release has 0"):
        compare(ours, upstreams, application, [Rotation(create=False, target="arbiter")] * 2)
