"""Packages in Debian's dist-packages: the table of docs/installations.md says who owns them, and what fits them."""

import re
from pathlib import Path
from typing import Callable, List

import pytest
from usr1 import patches
from usr1.apply import apply

from test_apply import trees
from test_apply.test_package_managers import run

ROOT = patches.PATCHES.parent
DOCUMENT = (ROOT / "docs" / "installations.md").read_text()
#: The pip that Debian's python3-venv installs, on Debian's own Python.
WHEELS, PYTHON = Path("/usr/share/python-wheels"), "/usr/bin/python3"


def pip_as_root_would(root: Path) -> Callable[..., str]:
    """`sudo pip` of Debian, in another root directory, where its user needs no rights."""
    [wheel] = WHEELS.glob("pip-*.whl")
    variables = {"PYTHONPATH": str(wheel), "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def pip(*arguments: object) -> str:
        settings = [f"{name}={value}" for name, value in variables.items()]
        options = ["--quiet", "--root", root, "--no-deps", "--ignore-installed"]
        return run("env", *settings, PYTHON, "-m", "pip", "install", *options, *arguments)

    return pip


def test_sudo_pip_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is pip's, and apply.sh leaves it alone; the same command installs the forks there."""
    pip = pip_as_root_would(tmp_path)
    pip(f"gunicorn=={patches.releases('gunicorn')[-1]}", f"uvicorn=={trees.NEWEST}")
    [packages] = tmp_path.glob("usr/local/lib/python3.*/dist-packages")
    row = f"`sudo pip install` on Debian or Ubuntu (`/usr/local/lib/python3.*/{packages.name}`) | pip owns these files"
    assert row in DOCUMENT
    assert [path.read_text().strip() for path in packages.glob("*.dist-info/INSTALLER")] == ["pip", "pip"]

    before = trees.snapshot(tmp_path)
    assert apply.main(["--no-tests", str(tmp_path / "usr" / "local")]) == 2
    trees.check_four_lines(capsys.readouterr().err, f"{tmp_path}/usr/local is not ")
    assert trees.snapshot(tmp_path) == before

    pip(ROOT / "vendor" / "gunicorn", ROOT / "vendor" / "uvicorn")
    for patch in map(patches.find, ("gunicorn", "uvicorn"), (patches.releases("gunicorn")[-1], trees.NEWEST)):
        assert patch and hashes(packages, patch) == list(patch.patched.values())


def hashes(packages: Path, patch: patches.Patch) -> List[str]:
    return [patches.sha256((packages / part.target).read_bytes()) for part in patch.parts]


def test_debian_s_own_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that a diff changes are the published ones, in the newest update too; and the documented diff fits."""
    monkeypatch.chdir(tmp_path)
    names = ("python3-uvicorn", "python3-gunicorn")
    run("apt-get", "download", *names)  # From the lists of the last `apt-get update`
    for name in names:
        [archive] = tmp_path.glob(f"{name}_*.deb")
        run("dpkg-deb", "--extract", archive, tmp_path)
        release = re.sub(r"[-+].*", "", archive.name.split("_")[1])
        packages, patch = tmp_path / "usr/lib/python3/dist-packages", patches.find(name[len("python3-") :], release)
        assert patch and hashes(packages, patch) == list(patch.pristine.values()), release
        if " 12 " in Path("/etc/os-release").read_text():  # That of the document
            assert f"{patch.path.relative_to(ROOT)} {name}" in DOCUMENT.replace("package=", "")
        run("patch", "-d", packages, "-p1", "--fuzz=0", "-i", patch.path)
        assert hashes(packages, patch) == list(patch.patched.values())
