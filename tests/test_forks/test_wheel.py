"""
The forks: their wheels, against what upstream published, against each other, and by scripts/build-fork.sh.

And what is refused, and in which words: one message, and nothing written.
"""

import csv
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Dict, List

import environments
import pytest
from environments import NEWEST, output
from packaging.requirements import Requirement
from usr1 import patches, record, wheel
from usr1.forks import build_fork, fork
from usr1.refusal import Refusal
from usr1.upkeep import releases

from test_forks.conftest import BY_DEFAULT, EVERY, ROOT, pristine_files, said, version


def published(distribution: str, release: str) -> Path:
    """The published wheel, downloaded once: uv installs wheels but does not keep them."""

    def fetch(work: Path) -> Path:
        # Later ones refuse the metadata of 0.13.0 to 0.13.2 and 0.14.0, which is not valid
        pip = [environments.cached(sys.version_info[:2], "pip==24.0").python, "-m", "pip", "download", "--no-deps"]
        options = ["--only-binary", ":all:", "--python-version", "3.99", "--dest", work / "wheel"]
        output(*pip, *options, f"{distribution}==={release}")
        return work / "wheel"

    [path] = releases._kept(f"{distribution}-{release}.wheel", fetch).iterdir()
    return path


def content(path: Path) -> Dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_without_a_version_it_is_the_newest_that_the_python_can_run() -> None:
    """But no fork of it, if the index has some: <= means those as well, and == too where a release was withdrawn."""
    requires = fork.Backend("uvicorn").get_requires_for_build_wheel
    assert requires({"version": "0.17.0"}) == ["uvicorn===0.17.0"]
    [requirement] = requires()
    accepts = Requirement(requirement).specifier
    assert accepts.contains(NEWEST) and accepts.contains("0.13.0") and not accepts.contains("0.12.3")
    assert not accepts.contains(f"{NEWEST}.post1") and not accepts.contains(f"{NEWEST}+usr1.1")


@pytest.mark.parametrize(
    "distribution, release", [pytest.param(*one, marks=[pytest.mark.full] * (one not in BY_DEFAULT)) for one in EVERY]
)
def test_only_the_patch_differs_from_what_was_published(distribution: str, release: str, wheels: Path) -> None:
    name = distribution.replace("-", "_")
    patch = fork.find(distribution, release)
    forked = version(distribution, release)
    theirs_path = published(distribution, release)
    path = wheels / theirs_path.name.replace(f"-{release}-", f"-{forked}-")
    info, old = f"{name}-{forked}.dist-info", f"{name}-{release}.dist-info"
    ours, theirs = content(path), {file.replace(old, info): data for file, data in content(theirs_path).items()}
    assert ours.keys() == theirs.keys()
    changed = {*patch.patched, f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"}
    assert {file for file in ours if ours[file] != theirs[file]} == changed
    assert {file: patches.sha256(ours[file]) for file in patch.patched} == patch.patched

    new = f"Version: {forked}\nProject-URL: Patch set uvicorn-usr1, {fork.header(patch)['Bug']}\n"
    metadata = theirs[f"{info}/METADATA"].decode().replace(f"Version: {release}\n", new, 1)
    assert ours[f"{info}/METADATA"].decode().splitlines() == metadata.splitlines()
    lines = set(ours[f"{info}/WHEEL"].splitlines()) - set(theirs[f"{info}/WHEEL"].splitlines())
    assert lines == {b"Generator: uvicorn-usr1"}
    assert list(ours)[-1] == f"{info}/RECORD"
    *rows, last = csv.reader(io.StringIO(ours.pop(f"{info}/RECORD").decode()))
    assert last == [f"{info}/RECORD", "", ""]
    assert rows == [[file, record.digest(patches.sha256(data)), str(len(data))] for file, data in ours.items()]


def test_the_order_in_which_files_were_installed_does_not_matter(tmp_path: Path) -> None:
    files = pristine_files()
    before = wheel.pack(files, tmp_path).read_bytes()
    assert wheel.pack(dict(reversed(files.items())), tmp_path).read_bytes() == before


def test_only_the_fields_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what the description in METADATA says, which may look like them."""
    files = pristine_files()
    files[f"uvicorn-{NEWEST}.dist-info/METADATA"] += b"\nVersion: as in a changelog\n"
    monkeypatch.setenv("UVICORN_USR1_TRUST", wheel.digest(files))
    forked = fork.fork("uvicorn", files)
    assert forked[f"{wheel.dist_info(forked)}/METADATA"].endswith(b"\nVersion: as in a changelog\n")


#: What a build environment does, on a Python that may be older than the tools.
BUILD = """
import sys
from usr1.forks.fork import Backend
for argument in sys.argv[2:]:
    distribution, release, directory = argument.split("=")
    sys.path.insert(0, directory)
    print(Backend(distribution).build_wheel(sys.argv[1], {"version": release}))
    del sys.path[0]
"""


@pytest.mark.parametrize("python", environments.pythons(), ids="{0[0]}.{0[1]}".format)
def test_every_python_makes_the_same_wheels(python: environments.Version, wheels: Path, tmp_path: Path) -> None:
    forks = sorted(path.name.split("-") for path in wheels.iterdir())
    cases = [(name.replace("_", "-"), forked.split("+")[0]) for name, forked, *_ in forks]
    built = output(
        *(environments.pythons()[python], "-c", BUILD, tmp_path),
        *(f"{distribution}={release}={releases.unpacked(distribution, release)}" for distribution, release in cases),
        **{"PYTHONPATH": str(ROOT / "scripts"), "TZ": "Asia/Tokyo"},
    )
    assert built.split() == ["-".join(one) for one in forks]
    for path in wheels.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_date_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dates = {"1700000000": (2023, 11, 14, 22, 13, 20), "1": (1980, 1, 1, 0, 0, 0)}
    for epoch, date in dates.items():
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        with zipfile.ZipFile(wheel.pack(pristine_files(), tmp_path)) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {date}
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}


def test_wheels_with_their_hashes(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [older], [newest], [worker] = (
        [path.name for path in wheels.glob(f"{name}+*")]
        for name in ("uvicorn-0.13.2", f"uvicorn-{NEWEST}", f"uvicorn_worker-{patches.releases('uvicorn-worker')[-1]}")
    )
    assert build_fork.main(["0.13.2", NEWEST]) == 0
    assert capsys.readouterr().out.splitlines() == [f"[1/2] dist/{older}", f"[2/2] dist/{newest}"]
    assert build_fork.main(["--distribution", "uvicorn-worker"]) == 0  # The newest, and beside the others
    assert capsys.readouterr().out.splitlines() == [f"[1/1] dist/{worker}"]
    dist = Path("dist")
    assert {*os.listdir(dist)} == {"SHA256SUMS", older, newest, worker}
    for name in (older, newest, worker):
        assert (dist / name).read_bytes() == (wheels / name).read_bytes()
    checked = output("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=dist)
    assert checked.splitlines() == [f"{older}: OK", f"{newest}: OK", f"{worker}: OK"]


def test_they_are_those_whose_hashes_are_published(wheels: Path) -> None:
    """As docs/private-index.md checks them."""
    hashes = [patches.PATCHES / distribution / patches.FORKS for distribution in patches.DISTRIBUTIONS]
    checked = output("sha256sum", "--check", "--ignore-missing", *hashes, cwd=wheels)
    assert checked.count(": OK\n") == len(os.listdir(wheels)), "run scripts/refresh.sh"


def test_by_pip_they_are_the_same(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "without uv")
    assert build_fork.main(["0.14.0", NEWEST]) == 0  # The older one's metadata is not valid
    for path in Path("dist").glob("*.whl"):
        assert path.read_bytes() == (wheels / path.name).read_bytes()


def test_all_is_of_each_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    built: List[str] = []
    monkeypatch.setattr(build_fork, "build", lambda distribution, *_: built.append(distribution))
    assert build_fork.main(["--all"]) == 0
    assert built == [*patches.DISTRIBUTIONS]


def test_all_of_them(tmp_path: Path) -> None:
    """By the script itself, from anywhere."""
    outdir = tmp_path / "with space"
    command = [ROOT / "scripts/build-fork.sh", "--all", "--distribution", "uvicorn-worker", "--outdir", outdir]
    text = output(*command, cwd="/")
    total = len(patches.releases("uvicorn-worker"))
    assert [line.split()[0] for line in text.splitlines()] == [f"[{n + 1}/{total}]" for n in range(total)]
    assert len(os.listdir(outdir)) == 1 + total


@pytest.mark.parametrize("arguments", [["--all", NEWEST], ["--distribution", "starlette"]])
def test_bad_usage(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_fork.main(arguments)
    assert "build-fork.sh: error: " in capsys.readouterr().err


NO_DIRECTORY = "a directory that may be written, with room on its disk"
NO_DATE = "SOURCE_DATE_EPOCH makes no sense"


@pytest.mark.parametrize(
    "options, date, start",
    [
        (["0.12.3"], "0", ["no patch is pinned to uvicorn 0.12.3", "one of the ", "0.12.3"]),
        ([], "yesterday", [NO_DATE, "seconds since 1970", "'yesterday'"]),
        ([], "4354819200", [NO_DATE, "seconds since 1970", "'4354819200'"]),
        (["--outdir", "file"], "0", ["file cannot be written", NO_DIRECTORY, "[Errno "]),
    ],
)
def test_refused_before_anything_is_written(
    options: List[str], date: str, start: List[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
    Path("file").touch()
    assert build_fork.main([NEWEST, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("build-fork.sh: ")
    assert all(map(str.startswith, said(err[len("build-fork.sh: ") :]), start))
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_no_network(tool: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"UV_OFFLINE": "1", "UV_CACHE_DIR": "cache", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if tool == "pip":
        monkeypatch.setenv("PATH", "without uv")
    assert build_fork.main([NEWEST]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"build-fork.sh: uvicorn {NEWEST} cannot be fetched\n")
    assert {"uv": "the network was disabled", "pip": f"uvicorn==={NEWEST}"}[tool] in said
    assert f"the settings of {tool}" in said
    assert not Path("dist").exists()


def test_a_full_disk() -> None:
    """Here no file may have more than 4096 bytes."""
    build = [sys.executable, "-c", BUILD, "out", f"uvicorn={NEWEST}={releases.unpacked('uvicorn', NEWEST)}"]
    said = output("prlimit", "--fsize=4096", *build, status=1, PYTHONPATH=str(ROOT / "scripts"))
    assert "File too large" in said
    assert os.listdir("out") == []


EVIL = b"import evil\n"


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


def test_a_file_that_is_not_the_published_one() -> None:
    """As from a tampered or rebuilt index."""
    [patch] = fork.find("uvicorn", NEWEST).parts
    with pytest.raises(Refusal) as refusal:
        fork.fork("uvicorn", {**pristine_files(), patch.target: EVIL})
    what, expected, found, do = said(str(refusal.value))
    assert what == f"uvicorn/workers.py is not the one of uvicorn {NEWEST} as published"
    assert expected == f"SHA-256 {patch.pristine_sha256}"
    assert found == f"SHA-256 {patches.sha256(EVIL)}"
    assert f"{patches.sha256(EVIL)}, expected {patch.pristine_sha256}" in do


def test_a_wheel_that_is_not_the_published_one(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file that is new. The way out has to be typed, and is for just this."""
    [info] = pristine.glob("*.dist-info")
    with (info / "RECORD").open("a") as record:
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


@pytest.mark.full
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_a_wheelhouse(tool: str, tmp_path: Path) -> None:
    house, out = tmp_path / "house", tmp_path / "out"
    pip = [sys.executable, "-m", "pip"]
    output(*pip, "download", "--dest", house, f"uvicorn==={NEWEST}")
    uv = [environments.UV, "build", "--wheel", "--out-dir"]
    command = uv if tool == "uv" else [*pip, "wheel", "--no-deps", "--wheel-dir"]
    output(*command, out, "--no-index", "--find-links", house, ROOT / "vendor" / "uvicorn", PIP_FIND_LINKS="")
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
