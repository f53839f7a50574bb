"""--check: the state of environments, in words and as JSON, and which real servers still run the old code."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

import environments
import pytest
from pytest import MonkeyPatch
from usr1 import patches
from usr1.apply import apply, installed, servers
from usr1.apply.environment import Environment, find

from test_apply import trees
from test_apply.trees import Run, dist_info

CHECK = ("--check", "--only", "uvicorn")


def rename_release(environment: Environment, version: str) -> None:
    """As if another version were installed."""
    old = dist_info(environment)
    metadata = old / "METADATA"
    metadata.write_text(metadata.read_text().replace(f"\nVersion: {trees.NEWEST}\n", f"\nVersion: {version}\n"))
    old.rename(old.with_name(f"uvicorn-{version}.dist-info"))


def test_pristine_and_patched(environment: Environment, run: Run) -> None:
    patch = patches.catalogue("uvicorn")[-1]
    named = f"patches/uvicorn/{patch.path.name}, revision {patch.revision}"
    uvicorn = f"{environment.path}: uvicorn {trees.NEWEST}"
    assert run(*CHECK, environment, status=1).out == f"{uvicorn}: pristine (its patch: {named})\n"
    run("--no-tests", environment)
    assert run(*CHECK, environment).out == f"{uvicorn}: patched ({named})\n"
    trees.workers(environment).with_name(f".workers.py.x{installed.UNFINISHED}").write_text("half a fi")
    assert "; an earlier run was interrupted, run scripts/apply.sh to finish it" in run(*CHECK, environment).out
    run("--no-tests", environment)
    [report] = json.loads(run(*CHECK, "--json", environment).out)
    assert (report["venv"], report["patched"], report["python"]) == (str(environment.path), True, environment.version)
    assert report["gunicorn"] and report["restart"] == [] and report["problem"] is None
    [one] = report["installed"]
    assert (one["distribution"], one["release"], one["state"]) == ("uvicorn", trees.NEWEST, "patched")
    assert (one["patch"], one["revision"], one["finished"]) == (patch.path.name, patch.revision, True)


def test_fork(environment: Environment, run: Run) -> None:
    """It needs no patching, and cannot be put back but by installing the release."""
    run("--no-tests", environment)
    rename_release(environment, f"{trees.NEWEST}+usr1.1")
    assert f": uvicorn {trees.NEWEST}+usr1.1: fork (patches/" in run(*CHECK, environment).out
    said = run("--no-tests", environment).out
    assert ", as before" in said
    reinstall = environment.reinstall(f"uvicorn==={trees.NEWEST}")
    both = f"{reinstall} && scripts/apply.sh --revert {environment.path}"
    assert f"undo:    {both}\n" in said
    for only, undo in ((["--only", "uvicorn"], reinstall), ([], both)):
        assert run("--revert", *only, environment, status=2).err.endswith(f"  do:       {undo}\n")


def test_a_fork_with_the_published_file_is_none(environment: Environment, run: Run) -> None:
    """No public index has it: the release that it was made from is what to install."""
    rename_release(environment, f"{trees.NEWEST}+usr1.1")
    said = run(*CHECK, environment, status=1).out
    assert ": changed by hand\n" in said and f"install --force-reinstall --no-deps uvicorn=={trees.NEWEST} " in said


@pytest.mark.parametrize(
    "version, nearest",
    [("0.12.3", "0.13.0"), ("0.27.1.post1", "0.27.1 and 0.28.0"), ("9.0", trees.NEWEST), ("?", trees.NEWEST)],
)
def test_unsupported(version: str, nearest: str, environment: Environment, run: Run) -> None:
    rename_release(environment, version)
    said = run(*CHECK, environment, status=1).out
    assert f": uvicorn {version}: unsupported release (the nearest: {nearest})\n" in said
    assert f"install uvicorn=={nearest.split()[-1]}" in said
    run("--no-tests", environment, status=2)


def test_not_installed(environment: Environment, run: Run) -> None:
    for path in environment.site_packages.glob("uvicorn*"):
        shutil.rmtree(path)
    assert run("--check", environment, status=1).out.startswith(f"{environment.path}: gunicorn "), "as good as any"
    assert ": uvicorn: not installed\n" in run(*CHECK, environment, status=2).out, "neither patched nor unpatched"
    [report] = json.loads(run(*CHECK, "--json", environment, status=2).out)
    assert report["installed"][0]["state"] == "not installed" and report["patched"] is None
    for path in environment.site_packages.glob("gunicorn*"):
        shutil.rmtree(path)
    assert ": uvicorn: not installed\n" in run("--check", environment, status=2).out


def test_without_its_dist_info(environment: Environment, run: Run) -> None:
    shutil.rmtree(dist_info(environment))
    said = run(*CHECK, environment, status=1).out
    assert ": uvicorn: broken installation (expected its dist-info in " in said
    assert f"  found:    {environment.site_packages}/uvicorn/__init__.py alone\n" in said


def test_an_interrupted_upgrade(environment: Environment, run: Run) -> None:
    """Which leaves two dist-infos: it is the newer one that is to be installed."""
    older = environment.site_packages / "uvicorn-0.9.0.dist-info"
    shutil.copytree(dist_info(environment), older)
    (older / "METADATA").write_text("Version: 0.9.0\n")
    said = run(*CHECK, environment, status=1).out
    assert f"  found:    uvicorn-{trees.NEWEST}.dist-info and {older.name}\n" in said
    assert f"install --force-reinstall --no-deps uvicorn=={trees.NEWEST} " in said


@pytest.mark.parametrize("level", range(3), ids=["site-packages", "python3", "lib"])
def test_no_directory_of_packages(level: int, environment: Environment, run: Run) -> None:
    path = [environment.site_packages, *environment.site_packages.parents][level]
    shutil.rmtree(path)
    path.touch()
    for option, said in (("--check", "cannot look at"), ("--no-tests", "cannot ")):
        assert "Not a directory" in run.refused(said, option, environment)


def test_no_environment(tmp_path: Path, run: Run) -> None:
    paths = (tmp_path / "none", tmp_path)
    run.refused(f"{paths[0]} is not a virtual environment", paths[0])
    assert not list(tmp_path.iterdir())
    assert run("--check", *paths, status=2).out == "".join(f"{path} is not a virtual environment\n" for path in paths)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to("gone")
    said = run.refused(f"{tmp_path} has lost its Python", "--check", tmp_path)
    assert f"found:    a link to {tmp_path}/bin/gone, which is not there\n" in said
    python.unlink()
    python.touch()
    said = run.refused(f"{tmp_path} is not an environment with packages of its own", "--check", tmp_path)
    assert "see docs/installations.md" in said
    for number in ("3.11", "3.12"):  # Neither tells which one it is
        (tmp_path / "lib" / f"python{number}" / "site-packages").mkdir(parents=True)
    assert "lib/python3.11/site-packages and " in run("--check", tmp_path, status=2).out


LAYOUTS = {
    "venv": ("python3.11", "home = /usr/bin\nversion = 3.11.7\n", "", "3.11.7"),
    "virtualenv": ("python3.11", "home = /usr/bin\nversion_info = 3.11.7.final.0\n", "", "3.11.7"),
    "conda": ("python3.11", "", "python3.11", "3.11"),
    "without its thread lock": ("python3.13t", "version = 3.13.1\n", "", "3.13.1"),
    "PyPy": ("pypy3.9", "version = 3.9.1\n", "", "3.9.1"),
    "nothing but the directory": ("python3.11", "", "", "python3.11"),
}


@pytest.mark.parametrize("library, settings, link, version", LAYOUTS.values(), ids=LAYOUTS)
def test_its_python_is_not_run(library: str, settings: str, link: str, version: str, tmp_path: Path) -> None:
    """What the environment is can be seen: root may look at those of others."""
    site_packages = tmp_path / "lib" / library / "site-packages"
    site_packages.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / (link or "python")
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    python.chmod(0o755)
    if link:
        (tmp_path / "bin" / "python").symlink_to(link)
    (tmp_path / "pyvenv.cfg").write_text(settings)
    found = find(tmp_path)
    assert (found.site_packages, found.version) == (site_packages, version)
    for option in ("--check", "--no-tests", "--revert", "--dry-run", "--tests-only"):
        apply.main([option, str(tmp_path)])
    assert not (tmp_path / "run").exists()


SEEN = ("lib/{}/site-packages", "local/lib/{}/dist-packages", "lib/python3/dist-packages", "a project")


@pytest.mark.parametrize("place", SEEN)
def test_what_it_sees_elsewhere(place: str, environment: Environment, tmp_path: Path, run: Run) -> None:
    """In its base with --system-site-packages, and by a .pth file; there it is for all who see it."""
    beyond = tmp_path / "base" / place.format(environment.site_packages.parent.name)
    beyond.mkdir(parents=True)
    for path in environment.site_packages.glob("uvicorn*"):
        shutil.move(path, beyond / path.name)
    settings = f"home = {tmp_path}/base/bin\nversion = {environment.version}\n"
    (environment.path / "pyvenv.cfg").write_text(settings)
    assert ": uvicorn: not installed\n" in run(*CHECK, environment, status=2).out
    if place == "a project":  # After a line of code that is longer than any path may be
        (environment.site_packages / "some.pth").write_text(f"import sys; {'sys; ' * 1000}\n{beyond}\n")
    else:
        (environment.path / "pyvenv.cfg").write_text(f"{settings}include-system-site-packages = true\n")
    for option in ("--no-tests", "--tests-only"):
        run.refused("uvicorn lives outside", option, environment)
    said = run(*CHECK, environment, status=1).out
    assert f": outside the environment ({beyond}/uvicorn/__init__.py)\n" in said
    assert f" --force-reinstall --no-deps uvicorn=={trees.NEWEST}" in said


def test_several(environment: Environment, tmp_path: Path, run: Run) -> None:
    """A line each; all must be patched."""
    other = trees.light(tmp_path / "other", trees.source(trees.NEWEST, "uvicorn-worker"))
    changed = trees.light(tmp_path / "changed", trees.source())
    trees.workers(changed).write_text("x = 1\n")
    for one in (environment, other):
        run("--no-tests", one)
    said = run("--check", environment, other).out
    assert [line.split(":")[0] for line in said.splitlines()] == [str(environment.path), str(other.path)]
    assert ": uvicorn 0." in said
    assert "; uvicorn-worker 0." in said
    assert len(run("--check", environment, other, changed, status=1).out.splitlines()) == 3
    reports = json.loads(run("--check", "--json", environment, other, changed, status=1).out)
    assert [report["patched"] for report in reports] == [True, True, False]


@pytest.mark.parametrize("name", ["loop", "x" * 300], ids=["loop", "long"])
def test_a_path_that_leads_nowhere(name: str, environment: Environment, tmp_path: Path, run: Run) -> None:
    """Of several the others are still told."""
    (tmp_path / "loop").symlink_to("loop")
    path = f"{tmp_path}/{name}"
    for options in ([], ["--no-tests"], ["--revert"], ["--check"]):
        run.refused(f"cannot look at {path}", *options, path)
    one, middle, other = run("--check", environment, path, environment, status=2).out.splitlines()
    assert one == other and one.startswith(f"{environment.path}: uvicorn")
    assert middle.startswith(f"cannot look at {path}")


@pytest.mark.parametrize("option", ["--no-tests", "--check"])
def test_a_working_directory_that_is_gone(option: str, tmp_path: Path, run: Run, monkeypatch: MonkeyPatch) -> None:
    """Nobody can tell what a path is relative to."""
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    run.refused("venv is not a virtual environment", option, "venv")


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
def test_its_servers_are_named(command: str, served: Environment, environment: Environment, run: Run) -> None:
    run("--revert", served)
    os.utime(trees.workers(served), (1, 1))
    with running(served.path.parent, *command.format(venv=served.path).split()) as pid:
        assert old(served) == [], "it has started after the file was changed"
        said = run("--no-tests", served).out
        assert f"restart: the servers that still run the old code: gunicorn with pid {pid}\n" in said
        assert old(served) == [pid], "the arbiter, not its worker"
        run("--no-tests", environment)
        assert old(environment) == [], "it is another environment's"
        for one in installed.find(served):
            for path in one.contents:
                os.utime(path, (1, 1))
        assert old(served) == [], "as if restarted"
        # uv links these files as old as its cache has them: RECORD, which it writes, tells
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


SCRIPTS = {
    "one line": "#!{}\nimport sys\n",
    "a long path": "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\nimport sys\n",
    "with spaces": "#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''\nimport sys\n",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_copied_environment_is_warned_of(script: str, environment: Environment, run: Run) -> None:
    """Its bin/gunicorn runs the Python of the original, which is not patched."""
    other = Path("/the other" if script == "with spaces" else "/other")
    for path, warned in ((other / "bin" / "python", True), (environment.path / "bin" / "python3", False)):
        (environment.path / "bin" / "gunicorn").write_text(SCRIPTS[script].format(path))
        for option in ("--no-tests", "--check"):
            said = run(option, environment).out
            assert (f"warning: {environment.path}/bin/gunicorn runs {path}, not" in said) == warned, said
