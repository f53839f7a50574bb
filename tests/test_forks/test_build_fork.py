"""scripts/build-fork.sh: wheels for an index."""

import resource
import subprocess
from pathlib import Path
from typing import Dict, List

import environments
import pytest
from usr1 import patches
from usr1.forks import build_fork, fork

from test_forks.conftest import ROOT

NEWEST = patches.releases("uvicorn")[-1]
SCRIPT = ROOT / "scripts" / "build-fork.sh"


def names(directory: Path) -> "set[str]":
    return {path.name for path in directory.iterdir()}


def file_name(distribution: str, release: str) -> str:
    version = f"{release}+usr1.{fork.find(distribution, release).revision}"
    return f"{distribution.replace('-', '_')}-{version}-py3-none-any.whl"


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def test_wheels_with_their_hashes(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert build_fork.main(["0.13.2", NEWEST]) == 0
    older, newest = (file_name("uvicorn", release) for release in ("0.13.2", NEWEST))
    assert capsys.readouterr().out.splitlines() == [f"[1/2] dist/{older}", f"[2/2] dist/{newest}"]
    assert build_fork.main(["--distribution", "uvicorn-worker"]) == 0  # The newest, and beside the others
    worker = file_name("uvicorn-worker", patches.releases("uvicorn-worker")[-1])
    assert capsys.readouterr().out.splitlines() == [f"[1/1] dist/{worker}"]
    dist = tmp_path / "dist"
    assert names(dist) == {"SHA256SUMS", older, newest, worker}
    for wheel in (older, newest, worker):
        assert (dist / wheel).read_bytes() == (wheels / wheel).read_bytes()
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=dist, check=True, stdout=subprocess.PIPE, text=True
    )
    assert checked.stdout.splitlines() == [f"{older}: OK", f"{newest}: OK", f"{worker}: OK"]


def test_they_are_those_whose_hashes_are_published(wheels: Path) -> None:
    published: Dict[str, str] = {}
    for distribution in patches.DISTRIBUTIONS:
        lines = (patches.PATCHES / distribution / patches.FORKS).read_text().splitlines()
        assert len(lines) == len(patches.releases(distribution))
        published.update((name, digest) for digest, name in (line.split("  ") for line in lines))
    built = {path.name: patches.sha256(path.read_bytes()) for path in wheels.iterdir()}
    assert built.items() <= published.items(), "run scripts/refresh.sh"


@pytest.mark.usefixtures("without_uv")
def test_by_pip_they_are_the_same(wheels: Path, tmp_path: Path) -> None:
    """Also 0.14.0, whose metadata is not valid."""
    assert build_fork.main(["0.14.0", NEWEST, "--outdir", str(tmp_path / "dist")]) == 0
    for path in (tmp_path / "dist").glob("*.whl"):
        assert path.read_bytes() == (wheels / path.name).read_bytes()


def test_all_is_of_each_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """But of one, if that is asked for."""
    built: List[str] = []
    monkeypatch.setattr(build_fork, "build", lambda distribution, releases, outdir: built.append(distribution))
    for arguments, expected in (
        (["--all"], [*patches.DISTRIBUTIONS]),
        (["--all", "--distribution", "gunicorn"], ["gunicorn"]),
        ([], ["uvicorn"]),
    ):
        built.clear()
        assert build_fork.main(arguments) == 0
        assert built == expected


def test_all_of_them(wheels: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """By the script itself, from anywhere; only the few of uvicorn-worker, unless all are asked for."""
    outdir = tmp_path / "with space"
    every = patches.DISTRIBUTIONS if pytestconfig.getoption("--full") else ["uvicorn-worker"]
    for distribution in every:
        command = [str(SCRIPT), "--all", "--distribution", distribution, "--outdir", str(outdir)]
        answer = subprocess.run(command, cwd="/", check=True, stdout=subprocess.PIPE, text=True)
        number = len(patches.releases(distribution))
        assert [line.split()[0] for line in answer.stdout.splitlines()] == [
            f"[{n}/{number}]" for n in range(1, number + 1)
        ]
    assert len(names(outdir)) == 1 + sum(len(patches.releases(distribution)) for distribution in every)
    for path in wheels.iterdir():
        if (outdir / path.name).exists():
            assert (outdir / path.name).read_bytes() == path.read_bytes()


def test_a_release_without_a_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is fetched or written, not even what comes before it."""
    assert build_fork.main([NEWEST, "0.12.3", "--outdir", str(tmp_path / "dist")]) == 2
    assert capsys.readouterr().err.startswith("build-fork.sh: no patch is pinned to uvicorn 0.12.3\n  expected: ")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("date", ["yesterday", "4354819200"])
def test_a_date_that_is_none(
    date: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
    assert build_fork.main([NEWEST, "--outdir", str(tmp_path / "dist")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("build-fork.sh: SOURCE_DATE_EPOCH makes no sense\n  expected: seconds since 1970")
    assert f"  found:    '{date}'\n" in said
    assert names(tmp_path) == set()


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_no_network(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "cache"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if tool == "pip":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert build_fork.main([NEWEST, "--outdir", str(tmp_path / "dist")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"build-fork.sh: uvicorn {NEWEST} cannot be fetched\n")
    assert {"uv": "the network was disabled", "pip": f"uvicorn==={NEWEST}"}[tool] in said
    assert f"the settings of {tool}" in said
    assert "dist" not in names(tmp_path)


@pytest.mark.parametrize("arguments", [["--all", NEWEST], ["--distribution", "starlette"]])
def test_bad_usage(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_fork.main(arguments)
    assert "build-fork.sh: error: " in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str]) -> List[str]:
    """The lines of the only message."""
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["build-fork.sh", "expected", "found", "do"]
    return lines


@pytest.mark.parametrize("outdir", ["file", "file/dist", "/proc/nowhere/dist"])
def test_where_no_directory_can_be(outdir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / outdir
    assert build_fork.main([NEWEST, "--outdir", str(path)]) == 2
    what, _, found, _ = refused(capsys)
    assert what == f"build-fork.sh: {path} cannot be written" and "[Errno " in found
    assert names(tmp_path) == {"file"}


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Here no file may have more than 4096 bytes, but for what uv fetches."""
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\nulimit -S -f unlimited\nexec "{environments.UV}" "$@"\n')
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=":")
    out = tmp_path / "out"
    out.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        status = build_fork.main(["--outdir", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    what, _, found, _ = refused(capsys)
    assert what == f"build-fork.sh: {out} cannot be written" and "File too large" in found
    assert names(out) == set()
