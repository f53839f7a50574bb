"""The wheels against what upstream published, and against each other."""

import csv
import io
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Dict, List

import environments
import pytest
from packaging.requirements import Requirement
from usr1 import patches, record, wheel
from usr1.forks import fork
from usr1.upkeep import releases

from test_forks.conftest import ROOT, published


def content(path: Path) -> Dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def build(distribution: str, release: str, directory: Path) -> Path:
    """By the hooks, as an installer calls them, from the files that an installer put there."""
    backend = fork.Backend(distribution)
    settings = {"version": release}
    [requirement] = backend.get_requires_for_build_wheel(settings)
    assert release in Requirement(requirement).specifier
    assert f"{release}+usr1.1" not in Requirement(requirement).specifier
    return directory / backend.build_wheel(str(directory), settings)


def test_without_a_version_it_is_the_newest_that_the_python_can_run() -> None:
    """But no fork of it, if the index has some: <= means those as well."""
    [requirement] = fork.Backend("uvicorn").get_requires_for_build_wheel()
    accepts = Requirement(requirement).specifier
    newest = patches.releases("uvicorn")[-1]
    assert accepts.contains(newest) and accepts.contains("0.13.0") and not accepts.contains("0.12.3")
    assert not accepts.contains(f"{newest}.post1") and not accepts.contains(f"{newest}+usr1.1")


def lines(text: bytes) -> List[str]:
    return text.decode().splitlines()


def test_only_the_patch_differs_from_what_was_published(
    distribution: str, release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(releases.unpacked(distribution, release)))
    path = build(distribution, release, tmp_path)
    patch = patches.find(distribution, release)
    assert patch is not None
    version = f"{release}+usr1.{patch.revision}"
    name = distribution.replace("-", "_")
    [theirs_path] = published(distribution, release).iterdir()
    assert path.name == theirs_path.name.replace(f"-{release}-", f"-{version}-")
    assert [path] == list(tmp_path.iterdir())

    info = f"{name}-{version}.dist-info"
    ours = content(path)
    old = f"{name}-{release}.dist-info"
    theirs = {file.replace(old, info): data for file, data in content(theirs_path).items()}
    assert ours.keys() == theirs.keys()
    changed = {*patch.patched, f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"}
    assert {file for file in ours if ours[file] != theirs[file]} == changed
    assert {file: patches.sha256(ours[file]) for file in patch.patched} == patch.patched

    bug = fork.header(patch)["Bug"]
    at = lines(theirs[f"{info}/METADATA"]).index(f"Version: {release}")
    expected = lines(theirs[f"{info}/METADATA"])
    expected[at : at + 1] = [f"Version: {version}", f"Project-URL: Patch set uvicorn-usr1, {bug}"]
    assert lines(ours[f"{info}/METADATA"]) == expected
    assert {line for line in lines(ours[f"{info}/WHEEL"]) if line not in lines(theirs[f"{info}/WHEEL"])} == {
        "Generator: uvicorn-usr1"
    }
    assert_record(ours, f"{info}/RECORD")


def assert_record(files: Dict[str, bytes], name: str) -> None:
    assert list(files)[-1] == name
    rows = list(csv.reader(io.StringIO(files[name].decode())))
    assert rows[-1] == [name, "", ""]
    assert rows[:-1] == [
        [file, record.digest(patches.sha256(data)), str(len(data))] for file, data in files.items() if file != name
    ]


def test_the_order_in_which_files_were_installed_does_not_matter(tmp_path: Path) -> None:
    files = wheel.installed("uvicorn", [str(releases.unpacked("uvicorn", patches.releases("uvicorn")[-1]))])
    before = wheel.pack(files, tmp_path).read_bytes()
    assert wheel.pack(dict(reversed(files.items())), tmp_path).read_bytes() == before


def test_only_the_fields_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what the description in METADATA says, which may look like them."""
    newest = patches.releases("uvicorn")[-1]
    files = wheel.installed("uvicorn", [str(releases.unpacked("uvicorn", newest))])
    files[f"uvicorn-{newest}.dist-info/METADATA"] += b"\nVersion: as in a changelog\n"
    monkeypatch.setenv("UVICORN_USR1_TRUST", wheel.digest(files))
    forked = fork.fork("uvicorn", files)
    assert forked[f"{wheel.dist_info(forked)}/METADATA"].endswith(b"\nVersion: as in a changelog\n")


def test_releases_are_ordered_as_numbers() -> None:
    releases = ["0.17.0.post1", "0.100.0", "0.17.0", "1.2.0", "0.17.1", "0.9.9"]
    expected = ["0.9.9", "0.17.0", "0.17.0.post1", "0.17.1", "0.100.0", "1.2.0"]
    assert sorted(releases, key=patches.numbers) == expected


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
    names = sorted(path.name for path in wheels.iterdir())
    every = [name.split("-")[:2] for name in names]
    arguments = [
        f"{distribution}={release}={releases.unpacked(distribution, release)}"
        for distribution, release in ((name.replace("_", "-"), version.split("+")[0]) for name, version in every)
    ]
    answer = subprocess.run(
        [str(environments.pythons()[python]), "-c", BUILD, str(tmp_path), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "TZ": "Asia/Tokyo"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert answer.stdout.split() == names
    assert {name: (tmp_path / name).read_bytes() for name in names} == {
        name: (wheels / name).read_bytes() for name in names
    }


def test_the_date_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = patches.releases("uvicorn")[-1]
    monkeypatch.syspath_prepend(str(releases.unpacked("uvicorn", release)))
    dates = {"1700000000": (2023, 11, 14, 22, 13, 20), "1": (1980, 1, 1, 0, 0, 0)}
    for epoch, date in dates.items():
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        with zipfile.ZipFile(build("uvicorn", release, tmp_path)) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {date}
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}
