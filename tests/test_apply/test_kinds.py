"""
Environments of every kind, as other people have them.

And what pip, uv and Debian make of the files: that a patched environment is one of theirs, or is left to them.
"""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import environments
import pytest
from pytest import MonkeyPatch
from test_forks.conftest import run as command
from test_forks.test_install import pip
from usr1 import patches
from usr1.apply import apply, installed
from usr1.apply.environment import Environment, find
from usr1.apply.installed import State
from usr1.apply.user import NOBODY, User

from test_apply import trees
from test_apply.trees import Run

ROOT = patches.PATCHES.parent
#: The table in it says who owns the packages in Debian's dist-packages, and what fits them.
DOCUMENT = (ROOT / "docs" / "installations.md").read_text()
RELEASES = {"gunicorn": patches.releases("gunicorn")[-1], "uvicorn": trees.NEWEST}
REQUIREMENTS = [f"{distribution}=={release}" for distribution, release in RELEASES.items()]


def make(tool: str, path: Path) -> Environment:
    """By pip in an environment made by venv --copies, with bytecode in RECORD; or by uv."""
    if tool == "uv":
        return find(environments.make(path, sys.version_info[:2], *REQUIREMENTS).path)
    command(sys.executable, "-m", "venv", "--copies", path)
    pip(tool, path, "install", *REQUIREMENTS)
    return find(path)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_it_is_one_of_theirs(tool: str, tmp_path: Path, run: Run, monkeypatch: MonkeyPatch) -> None:
    # A hard link to uv's cache has the owner and mode of the file there, which may be anybody's.
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    environment = make(tool, tmp_path / "venv")
    before = trees.snapshot(environment.site_packages)
    run("--no-tests", environment)
    assert trees.disagreements(environment) == []

    # What is to be done says how to bring the published files back
    trees.workers(environment).write_text("changed = True\n")
    said = run("--no-tests", environment, status=2).err
    [advice] = re.findall(r"  do:       (.*), then run this again", said)
    assert advice.startswith(f"{environment.path}/bin/pip install " if tool == "pip" else "uv pip ")
    command("bash", "-c", advice)
    run("--check", environment, status=1)
    run("--revert", environment)
    now = trees.snapshot(environment.site_packages)
    # What the two note of how a distribution came to be there
    notes = ("/INSTALLER", "/REQUESTED", "/RECORD", "/uv_cache.json")
    info = trees.dist_info(environment).name
    assert {name for name in {*now, *before} if now.get(name) != before.get(name)} <= {info + note for note in notes}

    run("--no-tests", environment)
    pip(tool, environment.path, "check")
    assert REQUIREMENTS[1] in pip(tool, environment.path, "freeze")
    one = trees.only(environment)
    if tool == "pip":
        assert b"uvicorn/__pycache__/workers." in one.record.read_bytes()
        assert "uvicorn/workers.py" in pip(tool, environment.path, "show", "--files", "uvicorn")
    assert list(environment.site_packages.glob("uvicorn/__pycache__/workers.*")) == []
    pip(tool, environment.path, "uninstall", *(["--yes"] if tool == "pip" else []), "uvicorn")
    assert [path for path in environment.path.rglob("*") if "uvicorn" in path.name] == []


def hashes(packages: Path, patch: patches.Patch) -> List[str]:
    return [patches.sha256((packages / part.target).read_bytes()) for part in patch.parts]


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


def states(environment: Environment) -> Dict[str, State]:
    return {one.distribution: one.state for one in installed.find(environment)}


def check_both_ways(path: Path, environment: Environment) -> None:
    """Patch and put back what is at a path, which may be another name of the environment's."""
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(path)]) == 0
    assert set(states(environment).values()) == {State.PATCHED}
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
    assert list(states(environment)) == ["uvicorn", "gunicorn"]
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("number", range(3))
def test_without_so_many_distributions(number: int, tmp_path: Path) -> None:
    environment = trees.light(tmp_path / "venv", trees.source(trees.NEWEST, "uvicorn-worker"))
    for distribution in patches.DISTRIBUTIONS[:number]:
        name = distribution.replace("-", "_")
        for path in (environment.site_packages / name, *environment.site_packages.glob(f"{name}-*")):
            shutil.rmtree(path)
    assert tuple(states(environment)) == patches.DISTRIBUTIONS[number:]
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("name", ["with spaces", "ümläut-日本", "quote'\"$(x)", os.fsdecode(b"\xff\xfe")])
def test_names(name: str, tmp_path: Path) -> None:
    environment = trees.light(tmp_path / name, trees.source())
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("directory, name", [("", "venv"), ("venv", "."), ("", "link")])
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
    environment = make("uv", tmp_path / "venv")
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
    direct_url = trees.dist_info(environment) / "direct_url.json"
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


@pytest.mark.root
def test_owner_and_mode_are_kept(environment: Environment) -> None:
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "12345:54321", environment.site_packages], check=True)
    set_modes(environment.site_packages, 0o755, 0o640)
    check_both_ways(environment.path, environment)


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


def contents(directory: Path) -> List[bytes]:
    return [path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()]


@pytest.mark.root
@pytest.mark.parametrize("way", CLOSED)
def test_what_may_not_be_changed(way: str, environment: Environment, open_clone: None, run: Run) -> None:
    """By who runs this; root becomes nobody for it."""
    is_root = os.getuid() == 0
    if way == "files of others" and not is_root:
        pytest.skip("only root can give files away")
    for path in environment.site_packages.parents:  # pytest's directories are for their owner alone
        if path.stat().st_uid == os.getuid() and "pytest" in str(path):
            path.chmod(0o755)
    before = contents(environment.path)
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
    set_modes(environment.site_packages, 0o755, 0o755)
    assert process.exitcode == 0
    assert contents(environment.path) == before
