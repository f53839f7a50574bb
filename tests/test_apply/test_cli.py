"""scripts/apply.sh as people run it: arguments, exit statuses, a new environment, the properties, time."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import psutil
import pytest
from properties import wait
from properties.activities import ended
from pytest import CaptureFixture, MonkeyPatch
from test_forks import conftest as forks
from usr1 import patches
from usr1.apply import apply
from usr1.apply.environment import Environment
from usr1.apply.installed import State

from test_apply import conftest as trees
from test_apply.conftest import Run, variables

SCRIPT = trees.SCRIPTS / "apply.sh"

#: To be run with where other properties are, and the arguments of apply.
WITH_PROPERTIES = """
import pathlib, runpy, sys
from usr1.apply import proof
proof.ROOT = pathlib.Path(sys.argv.pop(1))
runpy.run_module("usr1.apply.apply", run_name="__main__", alter_sys=True)
"""


def script(*arguments: object, path: Path = SCRIPT, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, **options)


def test_from_anywhere(environment: Environment, tmp_path: Path) -> None:
    """By a link in a path with spaces, from another directory, with a PYTHONPATH of the user's own."""
    link = tmp_path / "my scripts" / "apply"
    link.parent.mkdir()
    link.symlink_to(SCRIPT)
    (tmp_path / "json.py").write_text("1 / 0")
    answer = script("--no-tests", "venv", path=link, cwd=tmp_path, env=variables(PYTHONPATH=str(tmp_path)))
    assert (answer.returncode, answer.stderr) == (0, "")
    for said in (f"Python {environment.version}", "gunicorn 2", f"{trees.NEWEST}: patched", "undo: ", "restart: "):
        assert said in answer.stdout
    assert trees.only(environment).state is State.PATCHED
    [undo] = re.findall("undo: +(scripts/apply.sh .*)", answer.stdout)
    assert subprocess.run(undo, shell=True, cwd=trees.SCRIPTS.parent).returncode == 0
    assert trees.only(environment).state is State.PRISTINE


@pytest.mark.parametrize("command", [[SCRIPT, "--help"], [SCRIPT, "-h"], ["dash", SCRIPT, "venv", "--help"]])
def test_help(command: List[str]) -> None:
    """Without the tools, so without a network; by another shell too."""
    answer = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    options = set(re.findall(r'"(--[a-z-]+)"', Path(apply.__file__).read_text()))
    assert {*options, "--help", "--version"} <= set(re.findall(r"--[a-z-]+", answer.stdout)) and "--check" in options


def test_version() -> None:
    newest = max(patch.revision for path in patches.PATCHES.glob("*/*.patch") for patch in patches.read(path))
    answer = script("--version", env={"PATH": "/usr/bin:/bin"}, cwd="/")
    assert (answer.returncode, answer.stdout) == (0, f"uvicorn-usr1, patches at revision {newest}\n")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("", "arguments are required: VENV"),
        ("--bogus venv", "--bogus"),
        ("--revert --check venv", "not allowed with"),
        ("--json venv", "--json goes with --check"),
        ("--create --revert venv", "--create goes with what patches"),
        ("--only uvicorn --tests-only venv", "--tests-only tests all that is there"),
        ("--check --no-figures venv", "--no-figures goes with what tests"),
        ("--revert --verbose venv", "--verbose goes with what tests"),
        ("--only starlette venv", "invalid choice: 'starlette'"),
        ("''", "VENV: expected a path"),
        ("one two", "only --check takes several environments"),
    ],
)
def test_wrong_arguments(arguments: str, said: str, capsys: CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        apply.main(shlex.split(arguments))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("apply.sh: ") and said in error
    assert error.endswith("; see scripts/apply.sh --help\n") and error.count("\n") == 1


def test_a_dry_run_prints_what_patch_takes(environment: Environment, run: Run) -> None:
    """Only RECORD is not brought along by patch(1), which the next run does."""
    run("--no-tests", environment)
    done = trees.snapshot(environment.path)
    run("--revert", environment)
    diff = run("--dry-run", environment).out
    command = ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch"]
    subprocess.run(command, input=diff, text=True, cwd=environment.site_packages, check=True, stdout=subprocess.PIPE)
    unfinished = "; RECORD has other hashes, as after patch(1), run scripts/apply.sh to finish it"
    assert unfinished in run("--check", environment).out
    run("--no-tests", environment)
    assert trees.snapshot(environment.path) == done
    said = run("--dry-run", environment)
    assert said.out == ""
    assert said.err.startswith(f"{environment.path}: nothing to apply to uvicorn {trees.NEWEST}: patched (")


def test_twice_is_as_good_as_once(environment: Environment, run: Run) -> None:
    run("--no-tests", environment)
    once = trees.snapshot(environment.path), trees.workers(environment).stat()
    run("--no-tests", environment)
    assert (trees.snapshot(environment.path), trees.workers(environment).stat()) == once


@pytest.mark.parametrize("option", ["--no-tests", "--tests-only"])
def test_gunicorn_is_needed(option: str, environment: Environment, run: Run) -> None:
    trees.uninstall(environment, "gunicorn")
    run.refused("gunicorn is not installed", option, environment)


def test_what_cannot_be_imported(environment: Environment, run: Run) -> None:
    """As without what gunicorn depends on: nothing can be tested, so nothing is patched."""
    run.refused(f"{environment.path} cannot be tested", "--no-figures", environment)


@pytest.mark.measured
def test_another_system(environment: Environment) -> None:
    """Where there is no /proc, as on macOS, all but the tests works; they say so."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    apart = ["unshare", *user, "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
    before = trees.snapshot(environment.path)
    for options in ([], ["--tests-only"], ["--no-tests"], ["--check"], ["--revert"]):
        command = [*apart, *trees.MODULE, *options, str(environment.path)]
        answer = subprocess.run(command, env=variables(), capture_output=True, text=True)
        if options in ([], ["--tests-only"]):
            assert answer.returncode == 2
            assert "cannot be tested on this system" in forks.said(answer.stderr)[0]
        else:
            assert (answer.returncode, answer.stderr) == (0, "")
        patched = options in (["--no-tests"], ["--check"])
        assert (trees.snapshot(environment.path) == before) != patched


def test_without_proc(environment: Environment, run: Run, monkeypatch: MonkeyPatch) -> None:
    """As test_another_system, which needs to be root, or user namespaces."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self/status" and exists(path))
    run.refused("cannot be tested on this system", environment)


def test_time(environment: Environment) -> None:
    """Half a second; in time of the processor, which other tests at the same time do not add to."""
    script("--check", environment.path)
    times = []
    for option in ("--no-tests", "--revert") * 3:
        before = os.times()
        assert script(option, environment.path).returncode == 0
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.5, times


HOLDS = "def test_it(pytestconfig):\n    assert 'PYTHONPATH' not in __import__('os').environ\n"
FAILS = "def test_it(pytestconfig):\n    assert not (__debug__ and pytestconfig.getoption('--environment'))\n"
WAITS = """
import subprocess

def test_it():
    \"\"\"With something to stop, as servers are, in a session of its own.\"\"\"
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            print("testing", server.pid, flush=True)
            server.wait()
        finally:
            server.kill()
            server.wait()  # After a SIGINT leaving the block waits a quarter of a second only
"""


def suite(root: Path, test: str) -> Path:
    properties = root / "tests" / "properties"
    properties.mkdir(parents=True, exist_ok=True)
    (root / "setup.cfg").write_text("[tool:pytest]\naddopts = -s\n")
    (root / "tests" / "conftest.py").write_text("def pytest_addoption(parser): parser.addoption('--environment')")
    (properties / "test_it.py").write_text(test)
    return root


@pytest.mark.parametrize("found", [State.PRISTINE, State.PATCHED])
def test_what_fails_is_put_back(
    found: State, environment: Environment, root: Path, run: Run, monkeypatch: MonkeyPatch
) -> None:
    """Whatever the user has set for pytest, which would run nothing, and for Python, which would check nothing."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    if found is State.PATCHED:
        run("--no-tests", environment)
    before = trees.snapshot(environment.path)
    suite(root, FAILS)
    said = run("--no-figures", environment, status=1).out
    assert "is as it was found" in said and "getoption" not in said, "no traceback"
    assert trees.snapshot(environment.path) == before
    run("--tests-only", "--no-figures", environment, status=1)


@pytest.mark.measured
@pytest.mark.parametrize(
    "told, started_by",
    [("SIGHUP", ""), ("SIGINT", "env --ignore-signal=INT"), ("SIGQUIT", ""), ("SIGTERM", "nohup")],
)
def test_told_to_end(told: str, started_by: str, environment: Environment, root: Path) -> None:
    """While the properties are tested: they are stopped, and all is put back; with SIGINT ignored, as by a shell."""
    before = trees.snapshot(environment.path)
    command = [sys.executable, "-c", WITH_PROPERTIES, suite(root, WAITS), "--no-figures", environment.path]
    # These tests may have been started by nohup, or behind
    defaults = ["env", "--default-signal=HUP,INT"]
    with trees.start(*defaults, *started_by.split(), *command) as process:
        assert process.stdout is not None
        server = next(int(line.split()[-1]) for line in process.stdout if "testing" in line)
        if started_by == "nohup":  # It outlives its terminal
            os.killpg(process.pid, signal.SIGHUP)

        def has_ended() -> bool:
            """Told again, it has to undo all the same."""
            os.killpg(process.pid, signal.Signals[told])  # As a terminal does
            return process.poll() is not None

        try:
            wait.until(has_ended, lambda: "it does not end")
        finally:
            process.kill()
        said = process.stdout.read()
    assert process.returncode == 128 + signal.Signals[told]
    assert not psutil.pid_exists(server)
    assert "is as it was found" in said
    assert "fail" not in said
    assert f"apply.sh: interrupted by {told}; the state now:\n{environment.path}: uvicorn " in said
    assert trees.snapshot(environment.path) == before


def with_uv(directory: Path, code: str) -> Dict[str, str]:
    """The variables with which this is run as uv, in sh."""
    uv = directory / "uv"
    uv.write_text(f"#!/bin/sh\n{code}\n")
    uv.chmod(0o755)
    return variables(PATH=f"{directory}:{os.environ['PATH']}")


def test_told_to_end_while_it_creates(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """What it runs, and what that runs, is not told, but ends too."""
    venv, pid = tmp_path / "venv", tmp_path / "pid"

    def tell() -> None:
        if pid.exists() and pid.read_text():
            raise apply.Interrupted(signal.SIGTERM)

    monkeypatch.setenv("PATH", with_uv(tmp_path, f"sleep 600 & echo $! >'{pid}'; wait")["PATH"])
    monkeypatch.setattr("usr1.apply.environment.dot", tell)  # Which is called while it is waited for
    with pytest.raises(SystemExit):
        apply.main(["--create", str(venv)])
    assert ended(int(pid.read_text()))
    assert not venv.exists()


def test_its_installer_may_ask_on_the_terminal(tmp_path: Path) -> None:
    """For the password of an index, say."""
    asks = with_uv(tmp_path, 'read -r answer </dev/tty && echo "$answer" >"$0.heard"; exit 1')
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*trees.MODULE, "--create", str(tmp_path / "venv")], asks)
    try:
        os.write(terminal, b"password\n")
        wait.until((tmp_path / "uv.heard").exists, lambda: "it cannot read from the terminal")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.measured
@pytest.mark.parametrize("lost", ["| head -n 1", ">/dev/full", "<&- >&- 2>&-"])
def test_a_lost_output_decides_nothing(lost: str, environment: Environment, root: Path) -> None:
    """The properties are run, and only those that hold make what is patched stay."""
    for test, options, status, state in (
        (HOLDS, ["--dry-run"], 0, State.PRISTINE),
        (FAILS, ["--no-figures"], 1, State.PRISTINE),
        (HOLDS, ["--no-figures"], 0, State.PATCHED),
        (HOLDS, ["--revert"], 0, State.PRISTINE),
    ):
        shell = ["bash", "-c", f'"$@" {lost}; exit ${{PIPESTATUS[0]}}', "bash"]
        paths = str(suite(root, test)), str(environment.path)
        command = [*shell, sys.executable, "-c", WITH_PROPERTIES, *paths, *options]
        answer = subprocess.run(command, env=variables(), capture_output=True, text=True)
        wanted = r"(apply\.sh: cannot write what there is to say: .*No space left on device\n)?"
        assert re.fullmatch(wanted, answer.stderr), answer.stderr
        assert (answer.returncode, trees.only(environment).state) == (status, state)


@pytest.mark.parametrize("damage", ["open(f'{info}/RECORD', 'w')", "rmtree(f'{info}/../uvicorn'); rmtree(info)"])
def test_what_cannot_be_put_back(damage: str, environment: Environment, root: Path, run: Run) -> None:
    """It is not said that nothing was changed. The second damage is what an installer does."""
    info = str(trees.dist_info(environment))
    suite(root, f"from shutil import rmtree\ndef test_it():\n    info = {info!r}\n    {damage}\n    1 / 0\n")
    said = run("--no-figures", environment, status=3).err
    assert "cannot be restored" in said
    assert "--only" not in said


def test_a_new_environment_goes_with_what_fails(root: Path, tmp_path: Path, run: Run) -> None:
    suite(root, FAILS)
    run("--create", tmp_path / "venv", status=1)
    assert not (tmp_path / "venv").exists()


def test_a_new_environment_that_cannot_be_made(tmp_path: Path, run: Run, monkeypatch: MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    for name, said in (
        ("no/such/directory", "make its parent directory first"),
        ("link", "a link that leads nowhere"),
        ("venv", "see why this fails: "),
    ):
        answer = run("--create", f"{tmp_path}/{name}", status=2).err
        assert "cannot create" in answer and said in answer
    assert not (tmp_path / "venv").exists()
