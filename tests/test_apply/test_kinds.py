"""
Environments of every kind, as other people have them, and what --check says of them, in words and as JSON.

And what pip, uv and Debian make of the files: that a patched environment is one of theirs, or is left to them.
"""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import environments
import pytest
from environments import output as command
from pytest import MonkeyPatch
from test_forks.test_install import pip
from usr1 import patches
from usr1.apply import apply, installed, servers
from usr1.apply.environment import Environment, find
from usr1.apply.installed import State
from usr1.apply.user import NOBODY, User

from test_apply import conftest as trees
from test_apply.conftest import Run, dist_info
from test_apply.test_cli import HOLDS, suite

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
    # With the published file it is none. No public index has it: what to install is the release that it was made from
    [file] = trees.only(environment).files
    file.path.write_bytes(file.pristine)
    said = run(*CHECK, environment, status=1).out
    assert ": changed by hand\n" in said and f"install --force-reinstall --no-deps uvicorn=={trees.NEWEST} " in said
    assert f"expected: SHA-256 {patches.sha256(file.patched)}, patched\n" in said


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
    trees.uninstall(environment)
    assert run("--check", environment, status=1).out.startswith(f"{environment.path}: gunicorn "), "as good as any"
    assert ": uvicorn: not installed\n" in run(*CHECK, environment, status=2).out, "neither patched nor unpatched"
    [report] = json.loads(run(*CHECK, "--json", environment, status=2).out)
    assert report["installed"][0]["state"] == "not installed" and report["patched"] is None
    trees.uninstall(environment, "gunicorn")
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


@pytest.mark.parametrize(
    "place", ["lib/{}/site-packages", "local/lib/{}/dist-packages", "lib/python3/dist-packages", "a project"]
)
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
    run("--no-tests", environment)
    reports = json.loads(run("--check", "--json", environment, other, status=1).out)
    assert [report["patched"] for report in reports] == [True, False]
    run("--no-tests", other)
    said = run("--check", environment, other).out
    assert [line.split(":")[0] for line in said.splitlines()] == [str(environment.path), str(other.path)]
    assert ": uvicorn 0." in said
    assert "; uvicorn-worker 0." in said


def test_a_path_that_leads_nowhere(environment: Environment, tmp_path: Path, run: Run) -> None:
    """Of several the others are still told."""
    (tmp_path / "loop").symlink_to("loop")
    path = f"{tmp_path}/loop"
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


@pytest.mark.parametrize("command", ["{venv}/bin/gunicorn", "venv/bin/python -m gunicorn"])
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
    shutil.copy("/bin/cat", extension)
    with subprocess.Popen(["gunicorn: master [app]"], executable=extension, stdin=subprocess.PIPE) as process:
        extension.touch()
        assert servers.outdated(served, [extension]) == [process.pid]


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


ROOT = patches.PATCHES.parent
#: The table in it says who owns the packages in Debian's dist-packages, and what fits them.
DOCUMENT = (ROOT / "docs" / "installations.md").read_text()
RELEASES = {"gunicorn": patches.releases("gunicorn")[-1], "uvicorn": trees.NEWEST}
REQUIREMENTS = [f"{distribution}=={release}" for distribution, release in RELEASES.items()]


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_a_new_environment(tool: str, tmp_path: Path, root: Path, run: Run, monkeypatch: MonkeyPatch) -> None:
    """By --create, with uv or, where there is none, with pip: it is one of theirs."""
    if tool == "pip":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    # A hard link to uv's cache has the owner and mode of the file there, which may be anybody's.
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    path = tmp_path / "new venv"
    before: trees.Snapshot = {}
    trees.before(monkeypatch, "_stage", 1, lambda: before.update(trees.snapshot(find(path).site_packages)))
    suite(root, HOLDS)
    run("--create", path)
    environment = find(path)
    assert trees.only(environment).state is State.PATCHED
    assert trees.disagreements(environment) == []
    assert installed.version(environment, "httptools"), "uvicorn[standard]"

    # What is to be done says how to bring the published files back
    trees.workers(environment).write_text("changed = True\n")
    said = run("--no-tests", environment, status=2).err
    [advice] = re.findall(r"  do:       (.*), then run this again", said)
    assert advice.startswith(f"'{path}/bin/pip' install " if tool == "pip" else "uv pip ")
    command("bash", "-c", advice)
    run("--check", environment, status=1)
    run("--revert", environment)
    now = trees.snapshot(environment.site_packages)
    # What the two note of how a distribution came to be there
    notes = ("/INSTALLER", "/REQUESTED", "/RECORD", "/uv_cache.json")
    info = dist_info(environment).name
    assert {name for name in {*now, *before} if now.get(name) != before.get(name)} <= {info + note for note in notes}

    run("--no-tests", environment)
    pip(tool, path, "check")
    assert REQUIREMENTS[1] in pip(tool, path, "freeze")
    if tool == "pip":
        assert b"uvicorn/__pycache__/workers." in trees.only(environment).record.read_bytes()
        assert "uvicorn/workers.py" in pip(tool, path, "show", "--files", "uvicorn")
    assert list(environment.site_packages.glob("uvicorn/__pycache__/workers.*")) == []
    pip(tool, path, "uninstall", *(["--yes"] if tool == "pip" else []), "uvicorn")
    assert [left for left in path.rglob("*") if "uvicorn" in left.name] == []


def hashes(packages: Path, patch: patches.Patch) -> List[str]:
    return [patches.sha256((packages / part.target).read_bytes()) for part in patch.parts]


@pytest.mark.full
def test_sudo_pip_install_on_debian(tmp_path: Path, run: Run) -> None:
    """It is pip's, and apply.sh leaves it alone; the same command installs the forks there."""
    # The pip that Debian's python3-venv installs, on Debian's own Python, in another root directory: without sudo
    [wheel] = Path("/usr/share/python-wheels").glob("pip-*.whl")
    variables = (f"PYTHONPATH={wheel}", "PIP_BREAK_SYSTEM_PACKAGES=1", "PIP_DISABLE_PIP_VERSION_CHECK=1")
    options = ("--quiet", "--root", tmp_path, "--no-deps", "--ignore-installed")
    pip = ("env", *variables, "/usr/bin/python3", "-m", "pip", "install", *options)
    command(*pip, *REQUIREMENTS)
    [packages] = tmp_path.glob("usr/local/lib/python3.*/dist-packages")
    row = f"`sudo pip install` on Debian or Ubuntu (`/usr/local/lib/python3.*/{packages.name}`) | pip owns these files"
    assert row in DOCUMENT
    assert [path.read_text().strip() for path in packages.glob("*.dist-info/INSTALLER")] == ["pip", "pip"]
    run.refused(f"{tmp_path}/usr/local is not ", "--no-tests", tmp_path / "usr" / "local")
    command(*pip, *(ROOT / "vendor" / distribution for distribution in RELEASES))
    for patch in map(patches.find, RELEASES, RELEASES.values()):
        assert patch and hashes(packages, patch) == list(patch.patched.values())


def test_debian_s_own_packages(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """The files that a diff changes are the published ones, in the newest update too; and the documented diff fits."""
    monkeypatch.chdir(tmp_path)
    for distribution in RELEASES:
        name = f"python3-{distribution}"
        command("apt-get", "download", name)  # From the lists of the last `apt-get update`
        [archive] = tmp_path.glob(f"{name}_*.deb")
        command("dpkg-deb", "--extract", archive, tmp_path)
        release = re.sub(r"[-+].*", "", archive.name.split("_")[1])
        packages, patch = tmp_path / "usr/lib/python3/dist-packages", patches.find(distribution, release)
        assert patch and hashes(packages, patch) == list(patch.pristine.values()), release
        if " 12 " in Path("/etc/os-release").read_text():  # That of the document
            assert f"{patch.path.relative_to(ROOT)} {name}" in DOCUMENT.replace("package=", "")
        command("patch", "-d", packages, "-p1", "--fuzz=0", "--no-backup-if-mismatch", "-i", patch.path)
        assert hashes(packages, patch) == list(patch.patched.values())


def check_both_ways(path: Path, environment: Environment) -> None:
    """Patch and put back what is at a path, which may be another name of the environment's."""
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(path)]) == 0
    assert {one.state for one in installed.find(environment)} == {State.PATCHED}
    assert trees.disagreements(environment) == []
    assert trees.stale(environment) == []
    changed = {name for name, entry in trees.snapshot(environment.path).items() if entry != before.get(name)}
    ours = {file for one in installed.find(environment) for file in one.written}
    assert {environment.path / name for name in changed} <= ours
    assert apply.main(["--revert", str(path)]) == 0
    assert trees.snapshot(environment.path) == before


def test_of_two_each_is_told_apart(tmp_path: Path, run: Run) -> None:
    """When uvicorn alone has been installed again since all were patched."""
    both = trees.light(tmp_path / "venv", trees.source(trees.NEWEST, "uvicorn-worker"))
    for option, said, names in (
        ("--no-tests", r"(\S+) \S+: patched .*, as before", ["uvicorn-worker", "gunicorn"]),
        ("--revert", r"(\S+) \S+ is as it was published", ["uvicorn"]),
    ):
        run("--no-tests", both)
        run("--revert", "--only", "uvicorn", both)
        assert re.findall(said, run(option, both).out) == names


@pytest.mark.parametrize("release", environments.parameters(environments.COMBINATIONS, environments.COMBINATIONS[::5]))
def test_every_combination(release: str, tmp_path: Path) -> None:
    """Of files and hooks."""
    environment = trees.light(tmp_path / "venv", trees.source(release))
    assert [one.distribution for one in installed.find(environment)] == ["uvicorn", "gunicorn"]
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("number", range(3))
def test_without_so_many_distributions(number: int, tmp_path: Path) -> None:
    environment = trees.light(tmp_path / "venv", trees.source(trees.NEWEST, "uvicorn-worker"))
    for distribution in patches.DISTRIBUTIONS[:number]:
        trees.uninstall(environment, distribution)
    assert tuple(one.distribution for one in installed.find(environment)) == patches.DISTRIBUTIONS[number:]
    check_both_ways(environment.path, environment)


def test_names(tmp_path: Path) -> None:
    name = "with spaces, ümläut-日本, quote'\"$(x)" + os.fsdecode(b"\xff\xfe")
    environment = trees.light(tmp_path / name, trees.source())
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("directory, name", [("venv", "."), ("", "link")])
def test_relative(directory: str, name: str, environment: Environment, monkeypatch: MonkeyPatch) -> None:
    link = environment.path.with_name("link")
    link.symlink_to("venv")
    monkeypatch.chdir(environment.path.parent / directory)
    check_both_ways(Path(name), environment)
    assert link.is_symlink()


def test_conda(environment: Environment, tmp_path: Path, run: Run) -> None:
    """It has no pyvenv.cfg, and its files are hard links to conda's cache of packages, as uv's are to its own."""
    (environment.path / "pyvenv.cfg").unlink()
    (environment.path / "conda-meta").mkdir()
    shutil.copytree(environment.site_packages, tmp_path / "pkgs", copy_function=os.link)
    before = trees.snapshot(tmp_path / "pkgs")
    check_both_ways(environment.path, environment)
    run("--no-tests", environment)
    assert trees.snapshot(tmp_path / "pkgs") == before


def test_symbolic_links_to_uv_s_cache(tmp_path: Path, monkeypatch: MonkeyPatch, run: Run) -> None:
    """They are named, and what is advised ends them, whatever the user has set for uv."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_LINK_MODE", "symlink")
    environment = find(environments.make(tmp_path / "venv", sys.version_info[:2], *REQUIREMENTS).path)
    said = run("--no-tests", environment, status=2).err
    assert "--only" not in said, "the other one would be refused too"
    for distribution in ("uvicorn", "gunicorn"):
        [metadata] = environment.site_packages.glob(f"{distribution}-*.dist-info/METADATA")
        said = run("--check", "--only", distribution, environment, status=1).out
        assert f": outside the environment ({metadata}, a link to {metadata.resolve()})\n" in said, said
        advice = re.search(r"do: +uv (.*), then run this again", said)
        assert advice and "--link-mode copy" in advice[1]
        subprocess.run(f"{environments.UV} {advice[1]} -q", shell=True, check=True)
    run("--no-tests", environment)


def test_editable_installs_are_refused(environment: Environment, run: Run) -> None:
    direct_url = dist_info(environment) / "direct_url.json"
    direct_url.write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
    said = run.refused("apply.sh: uvicorn lives outside", "--no-tests", environment)
    assert "  found:    an editable install" in said


@pytest.mark.parametrize("python", environments.pythons().values(), ids=str)
def test_every_python(python: Path, tmp_path: Path) -> None:
    """It imports what is there now, whatever it, or an installer, has compiled before."""
    environment = trees.light(tmp_path / "venv", trees.source("0.13.2"), python=python)
    one = trees.only(environment)
    subprocess.run([str(python), "-I", "-S", "-c", _NEVER_CHECKED, *one.contents], check=True)
    for option, patched in (("--no-tests", "True"), ("--revert", "False")) * 2:
        assert apply.main([option, str(environment.path)]) == 0
        imported = [str(python), "-I", "-S", "-c", _IMPORTED, *map(str, one.contents)]
        assert subprocess.run(imported, stdout=subprocess.PIPE, text=True, check=True).stdout == f"{patched}\n"


_NEVER_CHECKED = """
import py_compile, sys
if sys.version_info >= (3, 7):
    py_compile.compile(sys.argv[1], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""

_IMPORTED = """
import marshal, sys
from importlib.machinery import SourceFileLoader
print(b"handle_usr1" in marshal.dumps(SourceFileLoader("workers", sys.argv[1]).get_code("workers")))
"""


def set_modes(path: Path, directories: int, files: int) -> None:
    for one in [path, *path.rglob("*")]:
        one.chmod(directories if one.is_dir() else files)


OPEN_IT, AS_ROOT = "make it writable, then run this again", "run this again as user 0"
ELSEWHERE = "run this as a user who may look there, or name another"
#: What an ordinary user cannot change, and what is advised: to its owner, and to nobody.
CLOSED: Dict[str, Tuple[Callable[[Environment], object], str, str]] = {
    "locked": (lambda environment: set_modes(environment.site_packages, 0o555, 0o444), OPEN_IT, AS_ROOT),
    # In a directory that one may write to: the new file would be of another owner.
    "files of others": (lambda environment: set_modes(environment.site_packages, 0o777, 0o666), "", AS_ROOT),
    "not to be looked at": (lambda environment: environment.site_packages.chmod(0o300), OPEN_IT, AS_ROOT),
    "in a directory of others": (lambda environment: environment.path.parent.chmod(0), ELSEWHERE, ELSEWHERE),
}


@pytest.mark.root
@pytest.mark.parametrize("way", CLOSED)
def test_what_may_not_be_changed(way: str, place: Path, open_clone: None, run: Run) -> None:
    """By who runs this; root becomes nobody for it."""
    is_root = os.getuid() == 0
    if way == "files of others" and not is_root:
        pytest.skip("only root can give files away")
    environment = trees.light(place / "venv", trees.source())
    set_modes(environment.site_packages, 0o755, 0o644)
    before = trees.snapshot(environment.path, compiled=True)
    patches.catalogue("uvicorn")  # Nobody may import what this needs, if it is in root's home
    close, *advice = CLOSED[way]
    close(environment)

    def see() -> None:
        if is_root:
            User("nobody", NOBODY, NOBODY, []).become()
        assert advice[is_root] in run.refused(str(environment.path), "--no-tests", str(environment.path))

    process = multiprocessing.get_context("fork").Process(target=see)
    process.start()
    process.join()
    environment.path.parent.chmod(0o755)
    set_modes(environment.site_packages, 0o755, 0o644)
    assert process.exitcode == 0
    assert trees.snapshot(environment.path, compiled=True) == before
