"""scripts/build-fork.sh: wheels for an index, and source trees to read."""

import runpy
import subprocess
from pathlib import Path
from typing import List

import pytest
from usr1 import build_fork, fork, patches

ROOT = Path(__file__).resolve().parents[2]
NEWEST = fork.releases("uvicorn")[-1]
SCRIPT = ROOT / "scripts" / "build-fork.sh"


def names(directory: Path) -> "set[str]":
    return {path.name for path in directory.iterdir()}


def git(directory: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", str(directory), *command], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def test_wheels_with_their_hashes(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert build_fork.main(["0.13.2", NEWEST]) == 0
    older, newest = (f"uvicorn-{release}+usr1.1-py3-none-any.whl" for release in ("0.13.2", NEWEST))
    assert capsys.readouterr().out.splitlines() == [f"[1/2] dist/{older}", f"[2/2] dist/{newest}"]
    assert build_fork.main(["--distribution", "uvicorn-worker"]) == 0  # The newest, and beside the others
    worker = "uvicorn_worker-0.4.0+usr1.1-py3-none-any.whl"
    assert capsys.readouterr().out.splitlines() == [f"[1/1] dist/{worker}"]
    dist = tmp_path / "dist"
    assert names(dist) == {"SHA256SUMS", older, newest, worker}
    for wheel in (older, newest, worker):
        assert (dist / wheel).read_bytes() == (wheels / wheel).read_bytes()
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=dist, check=True, stdout=subprocess.PIPE, text=True
    )
    assert checked.stdout.splitlines() == [f"{older}: OK", f"{newest}: OK", f"{worker}: OK"]


@pytest.mark.usefixtures("without_uv")
def test_by_pip_they_are_the_same(wheels: Path, tmp_path: Path) -> None:
    """Also 0.14.0, whose metadata is not valid."""
    assert build_fork.main(["0.14.0", NEWEST, "--outdir", str(tmp_path / "dist")]) == 0
    for path in (tmp_path / "dist").glob("*.whl"):
        assert path.read_bytes() == (wheels / path.name).read_bytes()


def test_all_of_them(wheels: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """By the script itself, from anywhere; only the few of uvicorn-worker, unless all are asked for."""
    outdir = tmp_path / "with space"
    every = patches.DISTRIBUTIONS if pytestconfig.getoption("--full") else ["uvicorn-worker"]
    for distribution in every:
        command = [str(SCRIPT), "--all", "--distribution", distribution, "--outdir", str(outdir)]
        answer = subprocess.run(command, cwd="/", check=True, stdout=subprocess.PIPE, text=True)
        number = len(fork.releases(distribution))
        assert [line.split()[0] for line in answer.stdout.splitlines()] == [
            f"[{n}/{number}]" for n in range(1, number + 1)
        ]
    assert len(names(outdir)) == 1 + sum(len(fork.releases(distribution)) for distribution in every)
    for path in wheels.iterdir():
        if (outdir / path.name).exists():
            assert (outdir / path.name).read_bytes() == path.read_bytes()


def test_a_release_without_a_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is fetched or written, not even what comes before it."""
    assert build_fork.main([NEWEST, "0.12.3", "--outdir", str(tmp_path / "dist")]) == 2
    assert capsys.readouterr().err.startswith("build-fork.sh: no patch is pinned to uvicorn 0.12.3\n  expected: ")
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
    assert names(tmp_path / "dist") == set()


@pytest.mark.parametrize("arguments", [["--all", NEWEST], ["--checkout", NEWEST], ["--distribution", "gunicorn"]])
def test_bad_usage(arguments: List[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["build_fork", *arguments])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(build_fork.__file__, run_name="__main__")
    assert "build-fork.sh: error: " in capsys.readouterr().err


def test_a_tree_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patch is the second commit; how the user's git is set up does not matter."""
    config = (
        "[core]\n\tautocrlf = true\n\texcludesFile = ~/ignored\n[commit]\n\tgpgSign = true\n[user]\n\tname = Somebody\n"
    )
    (tmp_path / ".gitconfig").write_text(config)
    (tmp_path / "ignored").write_text("*.md\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    tree = tmp_path / "parent" / "tree"
    tree.mkdir(parents=True)
    assert build_fork.main(["--checkout", "0.34.3", str(tree)]) == 0
    assert names(tmp_path / "parent") == {"tree"}
    monkeypatch.delenv("HOME")
    patch = fork.find("uvicorn", "0.34.3")
    assert git(tree, "status", "--porcelain") == ""
    assert git(tree, "log", "--format=%s|%an").splitlines() == [
        "Reopen log files on SIGUSR1 without losing a line or a worker|uvicorn-usr1",
        "uvicorn 0.34.3, as published|uvicorn-usr1",
    ]
    assert len(git(tree, "log", "-1", "--format=%b").splitlines()) > 3
    assert git(tree, "diff", "--name-only", "HEAD~").split() == [patch.target]
    assert patches.sha256((tree / patch.target).read_bytes()) == patch.patched_sha256
    assert "LICENSE.md" in git(tree, "ls-tree", "-r", "--name-only", "HEAD~")
    pristine = subprocess.run(["git", "-C", str(tree), "show", f"HEAD~:{patch.target}"], stdout=subprocess.PIPE)
    assert patches.sha256(pristine.stdout) == patch.pristine_sha256


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_tree_where_something_is(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    if what == "directory":
        taken.mkdir()
        (taken / "file").touch()
    else:
        taken.touch()
    assert build_fork.main(["--checkout", NEWEST, str(taken)]) == 2
    assert capsys.readouterr().err.startswith(f"build-fork.sh: {taken} is in use\n")
    assert names(tmp_path) == {"taken"}
