"""What the tests need and is missing is said before they run: tests/look.sh."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [line.split()[0] for line in (ROOT / "tests" / "packages").read_text().splitlines() if line[0] != "#"]
NOWHERE = "http://127.0.0.1:9/simple/"
NO_INDEX = {"PIP_INDEX_URL": NOWHERE, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


def said(root: Path, **variables: str) -> List[str]:
    """What is said of this; nothing must be run."""
    settings = {name: value for name, value in os.environ.items() if name != "UV_INDEX_URL"}
    command = [str(root / "scripts" / "test.sh"), "--version"]  # If all is there this is soon done
    answer = subprocess.run(command, env={**settings, **variables}, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (2, ""), answer.stdout + answer.stderr
    return answer.stderr.splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Without any tools, in a path that needs quoting."""
    shutil.copytree(ROOT / "scripts", tmp_path / "o'clone" / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "o'clone" / "tests").mkdir()
    for name in ("look.sh", "packages", "requirements.txt"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "o'clone" / "tests")
    return tmp_path / "o'clone"


def without(*programs: str, directory: Path) -> str:
    """A PATH to all programs but these."""
    directory.mkdir()
    for place in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for program in Path(place).iterdir():
            if program.name not in programs and not (directory / program.name).exists():
                (directory / program.name).symlink_to(program)
    return str(directory)


def test_all_at_once(clone: Path, tmp_path: Path) -> None:
    path = without("git", "killall", directory=tmp_path / "bin")
    packages, index = said(clone, PATH=path, **NO_INDEX)
    assert packages == (
        "test.sh: Debian packages are missing; as root: apt-get install --no-install-recommends git psmisc"
    )
    assert re.fullmatch(rf"test.sh: pip does not reach the package index; .*: Could not fetch URL {NOWHERE}.*", index)
    packages, python = said(clone, PATH=path, PYTHON="/bin/false")
    assert "git psmisc" in packages
    assert python.startswith("test.sh: expected Python 3.9 or later for the tools, found /bin/false; install one")
    assert not list(clone.glob(".tools*"))


UNREACHED = "test.sh: uv does not reach the package index; try UV_INDEX_URL and SSL_CERT_FILE: "


def test_an_index_that_only_pip_reaches() -> None:
    [line] = said(ROOT, UV_INDEX_URL=NOWHERE)
    assert line.startswith(UNREACHED)


def test_uv_asks_the_index_of_pip(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {NOWHERE}\n")
    settings = {**NO_INDEX, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    del settings["PIP_INDEX_URL"]
    for variables in (NO_INDEX, settings):
        pip, uv = said(ROOT, **variables)
        assert "pip does not reach" in pip and NOWHERE in pip
        assert uv.startswith(UNREACHED) and NOWHERE in uv


def test_what_fails_has_another_exit_status(clone: Path) -> None:
    """Also if its own is 2, as that of ruff is when it cannot read its settings."""
    for tools in ROOT.glob(".tools-*"):
        (clone / tools.name).symlink_to(tools)
    (clone / ".ruff.toml").write_text("nonsense")
    answer = subprocess.run([clone / "scripts" / "test.sh"], capture_output=True, text=True)
    assert answer.returncode == 1 and "ruff failed" in answer.stderr, answer


def test_the_documents_name_the_packages() -> None:
    for document in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        [command] = re.findall(r"sudo apt-get install --no-install-recommends ([\w -]*)", text)
        assert command.split() == PACKAGES, document
