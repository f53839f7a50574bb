"""scripts/apply.sh as people run it: arguments, exit statuses, a new environment, the properties, time."""

import contextlib
import os
import pty
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import environments
import psutil
import pytest
from properties import wait
from properties.activities import ended
from usr1 import patches
from usr1.apply import apply, installed, proof
from usr1.apply.environment import Environment, _run, find
from usr1.apply.installed import State

from test_apply import trees

SCRIPT = Path(apply.__file__).parents[2] / "apply.sh"


def run(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def variables(**more: str) -> Dict[str, str]:
    """For the module in a process of its own."""
    return {**os.environ, "PYTHONPATH": str(SCRIPT.parent), **more}


_INTERRUPTIBLE = """
import pathlib, runpy, signal, sys
from usr1.apply import proof
signal.signal(signal.SIGINT, getattr(signal, sys.argv.pop(1)))
proof.ROOT = pathlib.Path(sys.argv.pop(1))
runpy.run_module("usr1.apply.apply", run_name="__main__", alter_sys=True)
"""


def interruptible(root: Path, *arguments: object, sigint: str = "SIG_DFL") -> List[str]:
    """The command line of apply with other properties, and with this done on a SIGINT at its start."""
    return [sys.executable, "-c", _INTERRUPTIBLE, sigint, str(root), *map(str, arguments)]


def state(environment: Environment) -> State:
    return trees.only(environment).state


def test_from_anywhere(environment: Environment, tmp_path: Path) -> None:
    """By a link in a path with spaces, from another directory, with a PYTHONPATH of the user's own."""
    link = tmp_path / "my scripts" / "apply"
    link.parent.mkdir()
    link.symlink_to(SCRIPT)
    (tmp_path / "json.py").write_text("1 / 0")
    command = [str(link), "--no-tests", "venv"]
    mine = variables(PYTHONPATH=str(tmp_path))
    answer = subprocess.run(command, cwd=tmp_path, env=mine, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    for said in (f"Python {environment.version}", "gunicorn 2", f"{trees.NEWEST}: patched", "undo: ", "restart: "):
        assert said in answer.stdout
    assert state(environment) is State.PATCHED
    undo = re.search("undo: +(scripts/apply.sh .*)", answer.stdout)
    assert undo
    assert subprocess.run(undo[1], shell=True, cwd=SCRIPT.parents[1]).returncode == 0
    assert state(environment) is State.PRISTINE


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["venv", "--help"]])
def test_help(arguments: list[str]) -> None:
    """Without the tools, so without a network."""
    answer = run(*arguments, env={"PATH": "/usr/bin:/bin"})
    assert (answer.returncode, answer.stderr) == (0, "")
    options = set(re.findall(r'"(--[a-z-]+)"', Path(apply.__file__).read_text()))
    assert {*options, "--help", "--version"} <= set(re.findall(r"--[a-z-]+", answer.stdout)) and "--check" in options


def test_version() -> None:
    """Without the tools too: that of the newest patch."""
    newest = max(patches.read(path).revision for path in patches.PATCHES.glob("*/*.patch"))
    answer = run("--version", env={"PATH": "/usr/bin:/bin"}, cwd="/")
    assert (answer.returncode, answer.stdout) == (0, f"uvicorn-usr1, patches at revision {newest}\n")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "arguments are required: VENV"),
        (["--bogus", "venv"], "--bogus"),
        (["--revert", "--check", "venv"], "not allowed with"),
        (["--json", "venv"], "--json goes with --check"),
        (["--create", "--revert", "venv"], "--create goes with what patches"),
        (["--only", "uvicorn", "--tests-only", "venv"], "--tests-only tests all that is there"),
        (["--check", "--no-figures", "venv"], "--no-figures goes with what tests"),
        (["--revert", "--verbose", "venv"], "--verbose goes with what tests"),
        (["--only", "starlette", "venv"], "invalid choice: 'starlette'"),
        ([""], "VENV: expected a path"),
        (["--check", "one", ""], "VENV: expected a path"),
        (["one", "two"], "only --check takes several environments"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        apply.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("apply.sh: ") and said in error
    assert error.endswith("; see scripts/apply.sh --help\n") and error.count("\n") == 1


def test_no_environment(tmp_path: Path) -> None:
    """A mistyped path must not be taken for success."""
    answer = run(tmp_path / "none")
    assert answer.returncode == 2 and "is not a virtual environment" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_a_dry_run_prints_what_patch_takes(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """Only RECORD is not brought along by patch(1), which the next run does."""
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    done = trees.snapshot(environment.path)
    assert apply.main(["--revert", str(environment.path)]) == 0
    before = trees.snapshot(environment.path)
    capsys.readouterr()
    assert apply.main(["--dry-run", str(environment.path)]) == 0
    diff = capsys.readouterr().out
    assert trees.snapshot(environment.path) == before
    command = ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch"]
    subprocess.run(command, input=diff, text=True, cwd=environment.site_packages, check=True, stdout=subprocess.PIPE)
    assert apply.main(["--check", str(environment.path)]) == 0
    unfinished = "; RECORD has other hashes, as after patch(1), run scripts/apply.sh to finish it"
    assert unfinished in capsys.readouterr().out
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == done
    capsys.readouterr()
    assert apply.main(["--dry-run", str(environment.path)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{environment.path}: nothing to apply to uvicorn {trees.NEWEST}: patched (")


def test_twice_is_as_good_as_once(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    once = trees.snapshot(environment.path), (environment.site_packages / "uvicorn" / "workers.py").stat()
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert (trees.snapshot(environment.path), (environment.site_packages / "uvicorn" / "workers.py").stat()) == once
    assert ", as before" in capsys.readouterr().out
    for said in ("put back as it was published", "is as it was published"):
        assert apply.main(["--revert", str(environment.path)]) == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--no-tests", "--tests-only"])
def test_gunicorn_is_needed(option: str, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    for path in environment.site_packages.glob("gunicorn*"):
        shutil.rmtree(path)
    before = trees.snapshot(environment.path)
    assert apply.main([option, str(environment.path)]) == 2
    assert "gunicorn is not installed" in capsys.readouterr().err
    assert trees.snapshot(environment.path) == before


def test_what_cannot_be_imported(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """As without what gunicorn depends on: nothing can be tested, so nothing is patched."""
    before = trees.snapshot(environment.path)
    for options in (["--tests-only"], []):
        assert apply.main([*options, "--no-figures", str(environment.path)]) == 2
        trees.check_four_lines(capsys.readouterr().err, f"{environment.path} cannot be tested")
        assert trees.snapshot(environment.path) == before


@pytest.mark.measured
def test_another_system(environment: Environment) -> None:
    """Where there is no /proc, as on macOS, all but the tests works; they say so."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    apart = ["unshare", *user, "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
    before = trees.snapshot(environment.path)

    def script(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [*apart, sys.executable, "-m", "usr1.apply.apply", *options, str(environment.path)]
        return subprocess.run(command, env=variables(), capture_output=True, text=True)

    for options in ([], ["--tests-only"]):
        answer = script(*options)
        assert answer.returncode == 2
        trees.check_four_lines(answer.stderr, "cannot be tested on this system")
        assert trees.snapshot(environment.path) == before
    for option, status in (("--no-tests", 0), ("--check", 0), ("--revert", 0), ("--check", 1)):
        answer = script(option)
        assert (answer.returncode, answer.stderr) == (status, "")
    assert trees.snapshot(environment.path) == before


def test_without_proc(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As test_another_system, which needs to be root, or user namespaces."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self/status" and exists(path))
    assert apply.main([str(environment.path)]) == 2
    trees.check_four_lines(capsys.readouterr().err, "cannot be tested on this system")


def test_time(environment: Environment) -> None:
    """Half a second; in time of the processor, which other tests at the same time do not add to."""
    run("--check", environment.path)
    times = []
    for option in ("--no-tests", "--revert") * 3:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(option, environment.path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5, times


SUITE: Dict[str, str] = {
    "setup.cfg": "[tool:pytest]\naddopts = -s\n",
    "tests/conftest.py": "def pytest_addoption(parser):\n    parser.addoption('--environment')\n",
}
HOLDS = "def test_it(pytestconfig):\n    assert 'PYTHONPATH' not in __import__('os').environ\n"
FAILS = "def test_it(pytestconfig):\n    assert not pytestconfig.getoption('--environment')\n"
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
    """Another suite in the place of the properties, which have tests of their own."""
    for name, text in {**SUITE, "tests/properties/test_it.py": test}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("found", [State.PRISTINE, State.PATCHED])
def test_what_fails_is_put_back(
    found: State,
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if found is State.PATCHED:
        apply.main(["--no-tests", str(environment.path)])
    before = trees.snapshot(environment.path)
    monkeypatch.setattr(proof, "ROOT", suite(tmp_path / "root", FAILS))
    assert apply.main([str(environment.path)]) == 1
    said = capsys.readouterr().out
    assert "is as it was found" in said and "getoption" not in said, "no traceback"
    assert trees.snapshot(environment.path) == before
    assert apply.main(["--tests-only", str(environment.path)]) == 1
    assert trees.snapshot(environment.path) == before


@pytest.mark.parametrize("name, value", [("PYTEST_ADDOPTS", "--collect-only"), ("PYTHONOPTIMIZE", "1")])
def test_the_user_s_variables_prove_nothing(
    name: str, value: str, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "ROOT", suite(tmp_path / "root", FAILS))
    monkeypatch.setenv(name, value)
    assert apply.main(["--tests-only", str(environment.path)]) == 1


@pytest.mark.measured
@pytest.mark.parametrize(
    "number, sigint",
    [
        (signal.SIGHUP, "SIG_DFL"),
        (signal.SIGINT, "SIG_DFL"),
        (signal.SIGINT, "SIG_IGN"),
        (signal.SIGQUIT, "SIG_DFL"),
        (signal.SIGTERM, "SIG_IGN"),
    ],
)
def test_told_to_end(number: signal.Signals, sigint: str, environment: Environment, tmp_path: Path) -> None:
    """While the properties are tested: they are stopped, and all is put back; with SIGINT ignored, as by a shell."""
    before = trees.snapshot(environment.path)
    command = interruptible(suite(tmp_path / "root", WAITS), environment.path, sigint=sigint)
    with subprocess.Popen(
        ["env", "--default-signal=HUP", *command],  # These tests may have been started by nohup
        env=variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        server = next(int(line.split()[-1]) for line in process.stdout if "testing" in line)
        os.killpg(process.pid, number)  # As a terminal does
        said = process.stdout.read()
    assert process.returncode == 128 + number
    assert not psutil.pid_exists(server)
    assert "is as it was found" in said and "fail" not in said
    assert f"apply.sh: interrupted by {number.name}; the state now:\n{environment.path}: uvicorn " in said
    assert trees.snapshot(environment.path) == before


def test_told_to_end_while_it_creates(tmp_path: Path) -> None:
    """As by kill, more than once: what it runs, and what that runs, is not told. Not measured: coverage holds a lock
    when it looks at a new file, and hangs at exit if a signal ends that look."""
    venv = tmp_path / "venv"
    with psutil.Popen(
        interruptible(tmp_path, "--create", venv), env=variables(PATH=environments.path_without("uv")),
        stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip

        def ensurepip() -> list[psutil.Process]:
            started: list[psutil.Process] = []
            for child in process.children():
                with contextlib.suppress(psutil.NoSuchProcess):  # It has ended meanwhile
                    started += child.children()
            return started

        try:
            installing = wait.until(ensurepip, lambda: "it installs no pip")
            for _ in range(3):
                process.terminate()
            assert process.wait(3 * wait.PATIENCE) == 128 + signal.SIGTERM
            assert all(ended(one.pid) for one in installing)
            assert not venv.exists()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_its_installer_may_ask_on_the_terminal(tmp_path: Path) -> None:
    """For the password of an index, say."""
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nread -r answer </dev/tty && echo "$answer" >"$0.heard"; exit 1\n')
    uv.chmod(0o755)
    pid, terminal = pty.fork()
    if pid == 0:
        command = interruptible(tmp_path, "--create", tmp_path / "venv")
        os.execve(command[0], command, variables(PATH=f"{tmp_path}:{os.environ['PATH']}"))
    try:
        os.write(terminal, b"password\n")
        wait.until((tmp_path / "uv.heard").exists, lambda: "it cannot read from the terminal")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.measured
def test_nohup(environment: Environment, tmp_path: Path) -> None:
    """It outlives its terminal."""
    command = ["nohup", *interruptible(suite(tmp_path / "root", WAITS), environment.path)]
    with subprocess.Popen(command, env=variables(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "testing" in line)
        ignored = re.search(r"^SigIgn:\t(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        process.terminate()
        process.stdout.read()
    assert ignored and int(ignored[1], 16) >> (signal.SIGHUP - 1) & 1


@pytest.mark.measured
@pytest.mark.parametrize("lost", ["| head -n 1", ">/dev/full", "<&- >&- 2>&-"])
def test_a_lost_output_decides_nothing(lost: str, environment: Environment, tmp_path: Path) -> None:
    """The properties are run, and only those that hold make what is patched stay."""

    def script(root: Path, *arguments: str) -> int:
        command = shlex.join(interruptible(root, *arguments, environment.path))
        shell = ["bash", "-c", f"{command} {lost}; exit ${{PIPESTATUS[0]}}"]
        answer = subprocess.run(shell, env=variables(), capture_output=True, text=True)
        wanted = r"(apply\.sh: cannot write what there is to say: .*No space left on device\n)?"
        assert re.fullmatch(wanted, answer.stderr), answer.stderr
        return answer.returncode

    holds, fails = suite(tmp_path / "holds", HOLDS), suite(tmp_path / "fails", FAILS)
    assert script(holds, "--dry-run") == 0
    assert script(fails) == 1
    assert state(environment) is State.PRISTINE
    assert script(holds) == 0
    assert state(environment) is State.PATCHED
    assert script(holds, "--revert") == 0
    assert state(environment) is State.PRISTINE


def test_what_is_no_property_puts_back_too(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anything that happens between the change and its proof."""
    before = trees.snapshot(environment.path)
    monkeypatch.setattr(apply, "_line", lambda one: 1 / 0)
    for option in ([], ["--no-tests"]):
        with pytest.raises(ZeroDivisionError):
            apply.main([*option, str(environment.path)])
        assert trees.snapshot(environment.path) == before


def test_what_cannot_be_put_back(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not said that nothing was changed."""
    [record] = environment.site_packages.glob("uvicorn-*.dist-info/RECORD")
    monkeypatch.setattr(
        proof, "ROOT", suite(tmp_path / "root", f"def test_it():\n    open({str(record)!r}, 'w')\n    1 / 0\n")
    )
    assert apply.main([str(environment.path)]) == 3
    said = capsys.readouterr().err
    assert "cannot be restored" in said and "--only" not in said


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_new_environment(installer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "ROOT", suite(tmp_path / "root", HOLDS))
    if installer == "pip":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    venv = tmp_path / "new venv"
    assert apply.main(["--create", str(venv)]) == 0
    made = find(venv)
    assert state(made) is State.PATCHED
    assert installed.version(made, "httptools"), "uvicorn[standard]"
    if made.version.split(".") >= ["3", "10"]:
        assert installed.version(made, "uvicorn") == trees.NEWEST


def test_a_new_environment_goes_with_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "ROOT", suite(tmp_path / "root", FAILS))
    assert apply.main(["--create", str(tmp_path / "venv")]) == 1
    assert not (tmp_path / "venv").exists()


def test_a_new_environment_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply.main(["--create", str(tmp_path / "no" / "such" / "directory")]) == 2
    said = capsys.readouterr().err
    assert "cannot create" in said and "make its parent directory first" in said
    (tmp_path / "link").symlink_to("nowhere")
    assert apply.main(["--create", str(tmp_path / "link")]) == 2
    assert "a link that leads nowhere" in capsys.readouterr().err
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    assert apply.main(["--create", str(tmp_path / "venv")]) == 2
    assert "see why this fails: " in capsys.readouterr().err
    assert not (tmp_path / "venv").exists()


class Told(BaseException):
    pass


def test_what_is_run_ends_with_who_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what that runs."""
    pid = tmp_path / "pid"

    def tell() -> None:
        if pid.exists() and pid.read_text():
            raise Told

    monkeypatch.setattr("usr1.apply.environment.dot", tell)  # Which is called while it is waited for
    with pytest.raises(Told):
        _run(["sh", "-c", f"sleep 600 & echo $! >'{pid}'; wait"], tmp_path, [])
    assert ended(int(pid.read_text()))
