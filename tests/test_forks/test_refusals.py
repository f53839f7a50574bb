"""What is refused, and in which words: one message, and nothing written."""

import shutil
import sys
from pathlib import Path
from typing import List

import environments
import pytest
from environments import output
from usr1 import patches, wheel
from usr1.forks import fork
from usr1.upkeep import releases

from test_forks.conftest import NEWEST, ROOT, said

EVIL = b"import evil\n"
PIP = sys.executable


@pytest.fixture
def pristine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The newest release as installed, for a test to damage: first on the module search path."""
    directory = Path(shutil.copytree(releases.unpacked("uvicorn", NEWEST), tmp_path / "pristine"))
    monkeypatch.syspath_prepend(str(directory))
    return directory


def refused(tmp_path: Path, release: str = NEWEST, distribution: str = "uvicorn") -> List[str]:
    with pytest.raises(SystemExit) as refusal:
        fork.Backend(distribution).build_wheel(str(tmp_path), {"version": release})
    assert list(tmp_path.rglob("*.whl")) == []
    return said(str(refusal.value))


@pytest.mark.parametrize("version", ["0.12.3", "99.0", "newest", "0.54.0+usr1.1", "0.13", ""])
def test_a_release_without_a_patch(version: str) -> None:
    with pytest.raises(SystemExit) as refusal:
        fork.Backend("uvicorn").get_requires_for_build_wheel({"version": version})
    number = len(patches.releases("uvicorn"))
    assert said(str(refusal.value)) == [
        f"no patch is pinned to uvicorn {version}",
        f"one of the {number} releases from 0.13.0 to {NEWEST} named in patches/uvicorn/*.patch",
        version,
        f"choose one of them (for pip: --config-settings version={NEWEST}, for example)",
    ]


def test_settings_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package of one command gets them. And a variable that is empty is as good as none."""
    others = {"--global-option": ["--quiet"], "--build-option": "", "cmake.version": ">=3.15", "python-version": "3.9"}
    requires = fork.Backend("uvicorn").get_requires_for_build_wheel
    newest = requires()
    assert requires(others) == newest
    monkeypatch.setenv("UVICORN_USR1_VERSION", "")
    assert requires() == newest
    assert requires({**others, "version": "0.33.0"})[0].startswith("uvicorn==0.33.0,")


def tamper(pristine: Path, name: str) -> Path:
    """As from a tampered or rebuilt index: its RECORD, which agrees with that file."""
    target = pristine / name
    [file] = pristine.glob("*.dist-info/RECORD")
    text = file.read_text().replace(wheel._digest(target.read_bytes()), wheel._digest(EVIL))
    for path, content in (file, text.encode()), (target, EVIL):
        path.unlink()
        path.write_bytes(content)
    return file


def test_a_file_that_is_not_the_published_one(pristine: Path, tmp_path: Path) -> None:
    [patch] = fork.find("uvicorn", NEWEST).parts
    tamper(pristine, patch.target)
    what, expected, found, do = refused(tmp_path)
    assert what == f"uvicorn/workers.py is not the one of uvicorn {NEWEST} as published"
    assert expected == f"SHA-256 {patch.pristine_sha256}"
    assert found == f"SHA-256 {patches.sha256(EVIL)}"
    assert f"{patches.sha256(EVIL)}, expected {patch.pristine_sha256}" in do


def test_a_wheel_that_is_not_the_published_one(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file that no patch changes, and one that is new. The way out has to be typed, and is for just those."""
    with tamper(pristine, "uvicorn/server.py").open("a") as record:
        record.write("uvicorn/evil.py,,\n")
    (pristine / "uvicorn" / "evil.py").touch()
    monkeypatch.setenv("UVICORN_USR1_TRUST", "1")
    what, expected, found, do = refused(tmp_path)
    assert what == f"uvicorn {NEWEST} is not the wheel that was published"
    assert patches.published("uvicorn")[NEWEST] in expected
    digest = found.split()[-1]
    assert do.endswith(f", set UVICORN_USR1_TRUST={digest}")
    monkeypatch.setenv("UVICORN_USR1_TRUST", digest)
    assert fork.Backend("uvicorn").build_wheel(str(tmp_path), {"version": NEWEST}).startswith(f"uvicorn-{NEWEST}+usr1")


@pytest.mark.parametrize("content, found", [(EVIL, wheel._digest(EVIL)), (b"", "no file")], ids=["changed", "missing"])
def test_a_file_that_is_not_the_installed_one(content: bytes, found: str, pristine: Path, tmp_path: Path) -> None:
    """As when somebody wrote through the hard links into the installer's cache."""
    target = pristine / "uvicorn" / "server.py"
    target.unlink()
    if content:
        target.write_bytes(content)
    what, expected, *lines = refused(tmp_path)
    assert what == f"{target} is not as it was published"
    assert expected.startswith("sha256=")
    assert lines[0] == f"{found}"


def test_another_release_in_the_build_environment(pristine: Path, tmp_path: Path) -> None:
    _, expected, found, _ = refused(tmp_path, release="0.13.4")
    assert (expected, found) == ("0.13.4", f"{NEWEST}")


def test_no_release_in_the_build_environment(tmp_path: Path) -> None:
    """As without build isolation."""
    what, _, found, do = refused(tmp_path, "0.4.0", "uvicorn-worker")
    assert what == "uvicorn-worker cannot be read from the build environment"
    assert found == "none"
    assert do == "build with isolation, so that the installer puts it there"


def test_no_source_distribution_and_nothing_to_edit(tmp_path: Path) -> None:
    backend = fork.Backend("uvicorn")
    with pytest.raises(SystemExit, match="build a wheel"):
        backend.build_sdist(str(tmp_path))
    with pytest.raises(SystemExit, match="install it without --editable"):
        backend.build_editable(str(tmp_path))


def wheel_by(installer: str, directory: Path, *options: object, fails: bool = False, **variables: str) -> str:
    """What an installer, uv or a Python's pip, says when it makes a wheel of the recipe in an empty directory."""
    pip = [installer, "-m", "pip", "wheel", "--no-deps", "--wheel-dir"]
    command = [environments.UV, "build", "--wheel", "--out-dir"] if installer == "uv" else pip
    status = (2 if installer == "uv" else 1) if fails else 0
    return output(*command, directory, *options, ROOT / "vendor" / "uvicorn", status=status, **variables)


@pytest.mark.parametrize("installer", [pytest.param(PIP, marks=pytest.mark.full, id="pip"), "uv"])
@pytest.mark.parametrize(
    "options, chosen, message",
    [
        (["--config-settings", "editable_mode=compat"], "0.12.3", "no patch is pinned to uvicorn 0.12.3\n"),
        (["--no-index"], NEWEST, f"=={NEWEST}"),  # The installer's own message, which names what it looked for
    ],
)
def test_the_installer_shows_why(options: List[str], chosen: str, message: str, installer: str, tmp_path: Path) -> None:
    answer = wheel_by(installer, tmp_path, *options, fails=True, UVICORN_USR1_VERSION=chosen)
    assert "uvicorn" in answer and message in answer and "Traceback" not in answer
    assert list(tmp_path.rglob("*.whl")) == []


@pytest.mark.full
@pytest.mark.parametrize("installer", [PIP, "uv"], ids=["pip", "uv"])
def test_a_wheelhouse(installer: str, tmp_path: Path) -> None:
    house, out = tmp_path / "house", tmp_path / "out"
    output(PIP, "-m", "pip", "download", "--dest", house, f"uvicorn==={NEWEST}")
    wheel_by(installer, out, "--no-index", "--find-links", house, PIP_FIND_LINKS="")
    assert len(list(out.glob(f"uvicorn-{NEWEST}+usr1.*.whl"))) == 1


def test_a_recipe_without_its_repository(tmp_path: Path) -> None:
    """As with pip before 21.3, which builds in a copy of the directory."""
    copy = shutil.copytree(ROOT / "vendor" / "uvicorn", tmp_path / "vendor" / "uvicorn")
    answer = output(sys.executable, "-c", "import backend", status=1, cwd=copy)
    expected = f"expected {tmp_path}/scripts/usr1/forks/fork.py, the rest of the repository, found none"
    assert answer.startswith(expected) and "pip 21.3" in answer


def test_the_recipes_are_the_same_code() -> None:
    assert len({(ROOT / "vendor" / name / "backend.py").read_bytes() for name in patches.DISTRIBUTIONS}) == 1
    recipes = [path.parent.name for path in (ROOT / "vendor").glob("*/backend.py")]
    assert sorted(recipes) == sorted(patches.DISTRIBUTIONS)
