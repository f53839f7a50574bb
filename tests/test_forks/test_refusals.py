"""What is refused, and in which words: one message, and nothing written."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import environments
import pytest
from usr1 import patches, wheel
from usr1.forks import fork
from usr1.upkeep import releases

from test_forks.conftest import ROOT

NEWEST = patches.releases("uvicorn")[-1]


@pytest.fixture
def pristine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The newest release as installed, for a test to damage: first on the module search path."""
    directory = Path(shutil.copytree(releases.unpacked("uvicorn", NEWEST), tmp_path / "pristine"))
    monkeypatch.syspath_prepend(str(directory))
    return directory


def refused(tmp_path: Path, release: str = NEWEST, distribution: str = "uvicorn") -> List[str]:
    """The lines of the message when the wheel is built; there must be no wheel then."""
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SystemExit) as refusal:
        fork.Backend(distribution).build_wheel(str(out), {"version": release})
    assert list(out.iterdir()) == []
    message = str(refusal.value)
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == ["expected", "found", "do"]
    return message.splitlines()


@pytest.mark.parametrize("version", ["0.12.3", "99.0", "newest", "0.54.0+usr1.1", "0.13", ""])
def test_a_release_without_a_patch(version: str) -> None:
    with pytest.raises(SystemExit) as refusal:
        fork.Backend("uvicorn").get_requires_for_build_wheel({"version": version})
    assert str(refusal.value).splitlines() == [
        f"no patch is pinned to uvicorn {version}",
        f"  expected: one of the {len(patches.releases('uvicorn'))} releases from 0.13.0 to {NEWEST}"
        " named in patches/uvicorn/*.patch",
        f"  found:    {version}",
        f"  do:       choose one of them (for pip: --config-settings version={NEWEST}, for example)",
    ]


def test_settings_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package of one command gets them. And a variable that is empty is as good as none."""
    others = {
        "editable_mode": "compat",
        "--global-option": ["--quiet"],
        "--build-option": "",
        "setup-args": ["-Doptimization=3"],
        "cmake.version": ">=3.15",
        "python-version": "3.9",
    }
    backend = fork.Backend("uvicorn")
    newest = backend.get_requires_for_build_wheel()
    assert backend.get_requires_for_build_wheel(others) == newest
    monkeypatch.setenv("UVICORN_USR1_VERSION", "")
    assert backend.get_requires_for_build_wheel() == newest
    assert backend.get_requires_for_build_wheel({**others, "version": "0.33.0"})[0].startswith("uvicorn==0.33.0,")


def test_a_file_that_is_not_the_published_one(pristine: Path, tmp_path: Path) -> None:
    """As from a tampered or rebuilt index: RECORD agrees with the file."""
    [patch] = fork.find("uvicorn", NEWEST).parts
    target = pristine / patch.target
    before = wheel._digest(target.read_bytes())
    target.unlink()
    target.write_bytes(b"import evil\n")
    [info] = pristine.glob("*.dist-info")
    text = (info / "RECORD").read_text().replace(before, wheel._digest(b"import evil\n"))
    (info / "RECORD").unlink()
    (info / "RECORD").write_text(text)
    what, expected, found, _ = refused(tmp_path)
    assert what == f"uvicorn/workers.py is not the one of uvicorn {NEWEST} as published"
    assert expected == f"  expected: SHA-256 {patch.pristine_sha256}"
    assert found == f"  found:    SHA-256 {patches.sha256(b'import evil' + bytes([10]))}"


def tamper(pristine: Path) -> None:
    """With a file that no patch changes: RECORD agrees with it, and has another that is new."""
    [info] = pristine.glob("*.dist-info")
    record, target = info / "RECORD", pristine / "uvicorn" / "server.py"
    text = record.read_text().replace(wheel._digest(target.read_bytes()), wheel._digest(b"import evil\n"))
    for path, content in ((target, "import evil\n"), (pristine / "uvicorn" / "evil.py", ""), (record, text)):
        path.unlink(missing_ok=True)
        path.write_text(content)
    record.write_text(f"{text}uvicorn/evil.py,,\n")


def test_a_wheel_that_is_not_the_published_one(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out has to be typed, and is good for just those files."""
    tamper(pristine)
    monkeypatch.setenv("UVICORN_USR1_TRUST", "1")
    what, expected, found, do = refused(tmp_path)
    assert what == f"uvicorn {NEWEST} is not the wheel that was published"
    assert patches.published("uvicorn")[NEWEST] in expected
    digest = found.split()[-1]
    assert do.endswith(f", set UVICORN_USR1_TRUST={digest}")
    monkeypatch.setenv("UVICORN_USR1_TRUST", digest)
    assert fork.Backend("uvicorn").build_wheel(str(tmp_path), {"version": NEWEST}).startswith(f"uvicorn-{NEWEST}+usr1")


@pytest.mark.parametrize("distribution", patches.DISTRIBUTIONS)
def test_every_release_is_pinned(distribution: str) -> None:
    pinned = patches.published(distribution)
    assert list(pinned) == patches.releases(distribution)
    release = patches.releases(distribution)[0]
    files = wheel.installed(distribution, [str(releases.unpacked(distribution, release))])
    assert wheel.digest(files) == pinned[release]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_file_that_is_not_the_installed_one(damage: str, pristine: Path, tmp_path: Path) -> None:
    """As when somebody wrote through the hard links into the installer's cache."""
    target = pristine / "uvicorn" / "server.py"
    target.unlink()
    if damage == "changed":
        target.write_bytes(b"import evil\n")
    what, expected, found, _ = refused(tmp_path)
    assert what == f"{target} is not as it was published"
    assert expected.startswith("  expected: sha256=")
    assert found == (
        "  found:    no file" if damage == "missing" else f"  found:    {wheel._digest(b'import evil' + bytes([10]))}"
    )


def test_another_release_in_the_build_environment(pristine: Path, tmp_path: Path) -> None:
    _, expected, found, _ = refused(tmp_path, release="0.13.4")
    assert (expected, found) == ("  expected: 0.13.4", f"  found:    {NEWEST}")


def test_a_fork_in_the_build_environment(pristine: Path, tmp_path: Path) -> None:
    [info] = pristine.glob("*.dist-info")
    info.rename(pristine / f"uvicorn-{NEWEST}+usr1.1.dist-info")
    text = (pristine / f"uvicorn-{NEWEST}+usr1.1.dist-info" / "RECORD").read_text()
    (pristine / f"uvicorn-{NEWEST}+usr1.1.dist-info" / "RECORD").write_text(
        text.replace(info.name, f"uvicorn-{NEWEST}+usr1.1.dist-info")
    )
    with pytest.raises(SystemExit, match=rf"no patch is pinned to uvicorn {NEWEST}\+usr1\.1\n"):
        fork.Backend("uvicorn").build_wheel(str(tmp_path))


def test_no_release_in_the_build_environment(tmp_path: Path) -> None:
    """As without build isolation."""
    what, _, found, do = refused(tmp_path, "0.4.0", "uvicorn-worker")
    assert what == "uvicorn-worker cannot be read from the build environment"
    assert found == "  found:    none"
    assert do == "  do:       build with isolation, so that the installer puts it there"


def test_no_source_distribution_and_nothing_to_edit(tmp_path: Path) -> None:
    backend = fork.Backend("uvicorn")
    with pytest.raises(SystemExit, match="build a wheel"):
        backend.build_sdist(str(tmp_path))
    with pytest.raises(SystemExit, match="install it without --editable"):
        backend.build_editable(str(tmp_path))


def wheel_by(
    installer: str, tmp_path: Path, *options: str, python: object = sys.executable, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """What an installer says when it makes a wheel of the recipe; python is pip's."""
    pip = [python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir"]
    uv = [environments.UV, "build", "--wheel", "--out-dir"]
    command = [*(pip if installer == "pip" else uv), tmp_path, *options, ROOT / "vendor" / "uvicorn"]
    return environments.run(*command, **variables)


@pytest.mark.parametrize("installer", [pytest.param("pip", marks=pytest.mark.full), "uv"])
@pytest.mark.parametrize(
    "options, chosen, said",
    [
        (["--config-settings", "editable_mode=compat"], "0.12.3", "no patch is pinned to uvicorn 0.12.3\n"),
        (["--no-index"], NEWEST, f"=={NEWEST}"),  # The installer's own message, which names what it looked for
    ],
)
def test_the_installer_shows_the_message(
    options: List[str], chosen: str, said: str, installer: str, tmp_path: Path
) -> None:
    answer = wheel_by(installer, tmp_path, *options, UVICORN_USR1_VERSION=chosen)
    assert answer.returncode != 0
    assert "uvicorn" in answer.stdout and said in answer.stdout and "Traceback" not in answer.stdout
    assert list(tmp_path.glob("**/*.whl")) == []


@pytest.mark.full
def test_a_wheelhouse(tmp_path: Path) -> None:
    """Of the release, and what it depends on."""
    house = tmp_path / "house"
    download = ["download", "--quiet", "--dest", str(house), f"uvicorn==={NEWEST}"]
    subprocess.run([sys.executable, "-m", "pip", *download], check=True)
    options = ["--no-index", "--find-links", str(house)]
    for installer in ("pip", "uv"):
        answer = wheel_by(installer, tmp_path / installer, *options, PIP_FIND_LINKS="")
        assert answer.returncode == 0, answer.stdout
        assert len(list((tmp_path / installer).glob(f"uvicorn-{NEWEST}+usr1.*.whl"))) == 1


def test_a_python_that_the_release_does_not_run_on(tmp_path: Path) -> None:
    """The installer's own message too: it names the release, and the Pythons that it runs on."""
    oldest = next((python for python in environments.pythons() if (3, 7) <= python < (3, 10)), None)
    if oldest is None:
        pytest.skip("no Python from 3.7 to 3.9 is at hand")
    python = environments.cached(oldest, "pip").python
    answer = wheel_by("pip", tmp_path, python=python, UVICORN_USR1_VERSION=NEWEST)
    assert answer.returncode != 0
    assert "uvicorn" in answer.stdout and f"=={NEWEST}" in answer.stdout
    assert ">=3.10" in answer.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("distribution", patches.DISTRIBUTIONS)
def test_a_recipe_without_its_repository(distribution: str, tmp_path: Path) -> None:
    """As with pip before 21.3, which builds in a copy of the directory."""
    shutil.copytree(ROOT / "vendor" / distribution, tmp_path / "vendor" / distribution)
    answer = environments.run(sys.executable, "-c", "import backend", cwd=tmp_path / "vendor" / distribution)
    assert answer.returncode == 1
    expected = f"expected {tmp_path}/scripts/usr1/forks/fork.py, the rest of the repository, found none"
    assert answer.stdout.startswith(expected) and "pip 21.3" in answer.stdout


def test_the_recipes_are_the_same_code() -> None:
    assert len({(ROOT / "vendor" / name / "backend.py").read_bytes() for name in patches.DISTRIBUTIONS}) == 1
    recipes = [path.parent.name for path in (ROOT / "vendor").glob("*/backend.py")]
    assert sorted(recipes) == sorted(patches.DISTRIBUTIONS)
