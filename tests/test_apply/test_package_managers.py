"""What pip, uv and Debian make of the files: that a patched environment is one of theirs, or is left to them."""

import re
import sys
from pathlib import Path
from typing import Callable, List, Tuple

import environments
import pytest
from pytest import MonkeyPatch
from usr1 import patches
from usr1.apply.environment import Environment, find

from test_apply import trees
from test_apply.trees import Run

ROOT = patches.PATCHES.parent
#: The table in it says who owns the packages in Debian's dist-packages, and what fits them.
DOCUMENT = (ROOT / "docs" / "installations.md").read_text()
RELEASES = {"gunicorn": patches.releases("gunicorn")[-1], "uvicorn": trees.NEWEST}
REQUIREMENTS = [f"{distribution}=={release}" for distribution, release in RELEASES.items()]


def command(*words: object) -> str:
    answer = environments.run(*words)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


Made = Tuple[Environment, Callable[..., str]]


def made_by_pip(path: Path) -> Made:
    """In an environment made by venv --copies, with bytecode in RECORD."""
    command(sys.executable, "-m", "venv", "--copies", path)
    pip = [path / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    command(*pip, "install", "--quiet", *REQUIREMENTS)
    return find(path), lambda what, *arguments: command(*pip, what, *arguments)


def made_by_uv(path: Path) -> Made:
    environment = find(environments.make(path, sys.version_info[:2], *REQUIREMENTS).path)
    uv = [environments.UV, "pip"]
    return environment, lambda what, *arguments: command(*uv, what, "--python", environment.python, *arguments)


def check_reinstall(environment: Environment, run: Run) -> None:
    """What is to be done says how to bring the published files back; then --check says so."""
    before = trees.snapshot(environment.site_packages)
    run("--no-tests", environment)
    assert trees.disagreements(environment) == []
    trees.workers(environment).write_text("changed = True\n")
    said = run("--no-tests", environment, status=2).err
    [advice] = re.findall(r"  do:       (.*), then run this again", said)
    by_pip = (environment.path / "bin" / "pip").exists()
    assert advice.startswith(f"{environment.path}/bin/pip install " if by_pip else "uv pip ")
    command("bash", "-c", advice)
    run("--check", environment, status=1)
    run("--revert", environment)
    now = trees.snapshot(environment.site_packages)
    # What the two note of how a distribution came to be there
    notes = ("/INSTALLER", "/REQUESTED", "/RECORD", "/uv_cache.json")
    info = trees.dist_info(environment).name
    assert {name for name in {*now, *before} if now.get(name) != before.get(name)} <= {info + note for note in notes}


@pytest.mark.parametrize("make", [made_by_pip, made_by_uv])
def test_it_is_one_of_theirs(make: Callable[[Path], Made], tmp_path: Path, run: Run, monkeypatch: MonkeyPatch) -> None:
    # A hard link to uv's cache has the owner and mode of the file there, which may be anybody's.
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    environment, installer = make(tmp_path / "venv")
    check_reinstall(environment, run)
    run("--no-tests", environment)
    installer("check")
    assert REQUIREMENTS[1] in installer("freeze")
    one = trees.only(environment)
    if make is made_by_pip:
        assert b"uvicorn/__pycache__/workers." in one.record.read_bytes()
        assert "uvicorn/workers.py" in installer("show", "--files", "uvicorn")
    assert trees.bytecode(environment, one) == []
    installer("uninstall", *(["--yes"] if make is made_by_pip else []), "uvicorn")
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
