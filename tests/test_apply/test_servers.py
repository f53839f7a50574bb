"""Which running servers still run the old code: real ones."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

import environments
import pytest
from usr1.apply import servers
from usr1.apply.environment import Environment, find

from test_apply import trees
from test_apply.trees import Run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment of its own, as servers run from it."""
    path = tmp_path_factory.mktemp("served")
    (path / "application.py").write_text("async def app(scope, receive, send):\n    pass\n")
    return find(environments.make(path / "venv", sys.version_info[:2], f"uvicorn=={trees.NEWEST}", "gunicorn").path)


@contextmanager
def running(directory: Path, *command: str) -> Iterator[int]:
    """The pid of an arbiter whose worker serves."""
    arguments = ["-k", "uvicorn.workers.UvicornH11Worker", "-b", "unix:socket", "application:app"]
    with subprocess.Popen([*command, *arguments], cwd=directory, stderr=subprocess.PIPE, text=True) as arbiter:
        try:
            assert arbiter.stderr is not None
            assert any("Application startup complete" in line for line in arbiter.stderr), "it has ended"
            yield arbiter.pid
        finally:
            arbiter.terminate()
            arbiter.communicate(timeout=60)


def old(environment: Environment) -> List[int]:
    return servers.outdated(environment, [trees.workers(environment)])


@pytest.mark.parametrize("command", ["{venv}/bin/gunicorn", "venv/bin/gunicorn", "{venv}/bin/python -m gunicorn"])
def test_its_servers_are_named(command: str, served: Environment, run: Run) -> None:
    run("--revert", served)
    os.utime(trees.workers(served), (1, 1))
    with running(served.path.parent, *command.format(venv=served.path).split()) as pid:
        assert old(served) == [], "it has started after the file was changed"
        said = run("--no-tests", served).out
        assert f"restart: the servers that still run the old code: gunicorn with pid {pid}\n" in said
        assert old(served) == [pid], "the arbiter, not its worker"
        os.utime(trees.workers(served), (1, 1))
        assert old(served) == [], "as if restarted"
        # uv links workers.py as old as its cache has it: RECORD, which it writes, tells
        assert f"; restart pid {pid}\n" in run("--check", served).out
    assert old(served) == []


def test_a_server_known_by_what_it_has_in_memory_only(served: Environment) -> None:
    """Like one whose command line setproctitle has replaced by that of another path."""
    extension = served.site_packages / "extension.so"
    extension.write_bytes(bytes(4096))
    script = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print(flush=True); input()"
    command = ["gunicorn: master [app]", "-c", script, str(extension)]
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        extension.touch()
        assert servers.outdated(served, [extension]) == [process.pid]
        process.communicate(b"\n")


def test_servers_of_other_environments_are_not_named(served: Environment, environment: Environment, run: Run) -> None:
    with running(served.path.parent, str(served.path / "bin" / "gunicorn")):
        run("--no-tests", environment)
        assert old(environment) == []


SCRIPTS = {
    "one line": "#!{}\nimport sys\n",
    "a long path": "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\nimport sys\n",
    "with spaces": "#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''\nimport sys\n",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_copied_environment_is_warned_of(script: str, environment: Environment, tmp_path: Path, run: Run) -> None:
    """Its bin/gunicorn runs the Python of the original, which is not patched."""
    other = tmp_path / ("the other" if script == "with spaces" else "other")
    shutil.copytree(environment.path, other, symlinks=True)
    for path, warned in ((other / "bin" / "python", True), (environment.path / "bin" / "python3", False)):
        (environment.path / "bin" / "gunicorn").write_text(SCRIPTS[script].format(path))
        for option in ("--no-tests", "--check"):
            said = run(option, environment).out
            assert (f"warning: {environment.path}/bin/gunicorn runs {path}, not" in said) == warned, said
