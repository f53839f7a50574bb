"""--check: the state of environments, in words and as JSON; and nothing changes."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

import environments
import pytest
from usr1 import patches
from usr1.apply import apply, installed
from usr1.apply.environment import Environment, find

from test_apply import trees

Json = Dict[str, Any]


UVICORN = ["--only", "uvicorn"]


def check(capsys: pytest.CaptureFixture[str], status: int, *targets: Environment, only: Sequence[str] = UVICORN) -> str:
    """What it says, in words."""
    before = [trees.snapshot(environment.path) for environment in targets]
    capsys.readouterr()
    assert apply.main(["--check", *only, *(str(environment.path) for environment in targets)]) == status
    assert [trees.snapshot(environment.path) for environment in targets] == before
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *targets: Environment, only: Sequence[str] = UVICORN) -> List[Json]:
    capsys.readouterr()
    apply.main(["--check", "--json", *only, *(str(environment.path) for environment in targets)])
    reports: List[Json] = json.loads(capsys.readouterr().out)
    return reports


def dist_info(environment: Environment) -> Path:
    [path] = environment.site_packages.glob("uvicorn-*.dist-info")
    return path


def rename_release(environment: Environment, version: str) -> None:
    """As if another version were installed."""
    old = dist_info(environment)
    metadata = old / "METADATA"
    metadata.write_text(metadata.read_text().replace(f"\nVersion: {trees.NEWEST}\n", f"\nVersion: {version}\n"))
    old.rename(old.with_name(f"uvicorn-{version}.dist-info"))


def test_pristine_and_patched(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    patch = trees.newest_patch()
    named = f"patches/uvicorn/{patch.path.name}, revision {patch.revision}"
    uvicorn = f"{environment.path}: uvicorn {trees.NEWEST}"
    assert check(capsys, 1, environment) == f"{uvicorn}: pristine (its patch: {named})\n"
    apply.main(["--no-tests", str(environment.path)])
    assert check(capsys, 0, environment) == f"{uvicorn}: patched ({named})\n"
    [report] = as_json(capsys, environment)
    assert (report["venv"], report["patched"], report["python"]) == (str(environment.path), True, environment.version)
    assert report["gunicorn"] and report["restart"] == [] and report["problem"] is None
    [one] = report["installed"]
    assert (one["distribution"], one["release"], one["state"]) == ("uvicorn", trees.NEWEST, "patched")
    assert (one["patch"], one["revision"], one["finished"]) == (patch.path.name, patch.revision, True)


def test_fork(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no patching, and cannot be put back but by installing the release."""
    apply.main(["--no-tests", str(environment.path)])
    rename_release(environment, f"{trees.NEWEST}+usr1.1")
    assert f": uvicorn {trees.NEWEST}+usr1.1: fork (patches/" in check(capsys, 0, environment)
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    said = capsys.readouterr().out
    assert ", as before" in said
    reinstall = environment.reinstall(f"uvicorn==={trees.NEWEST}")
    both = f"{reinstall} && scripts/apply.sh --revert {environment.path}"
    assert f"undo:    {both}\n" in said
    for only, undo in ((UVICORN, reinstall), ([], both)):
        assert apply.main(["--revert", *only, str(environment.path)]) == 2
        assert capsys.readouterr().err.endswith(f"  do:       {undo}\n")
    assert trees.snapshot(environment.path) == before


def test_a_fork_with_the_published_file_is_none(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """No public index has it: the release that it was made from is what to install."""
    rename_release(environment, f"{trees.NEWEST}+usr1.1")
    said = check(capsys, 1, environment)
    assert ": changed by hand\n" in said and f"install --force-reinstall --no-deps uvicorn=={trees.NEWEST} " in said


@pytest.mark.parametrize(
    "version, nearest",
    [("0.12.3", "0.13.0"), ("0.27.1.post1", "0.27.1 and 0.28.0"), ("9.0", trees.NEWEST), ("?", trees.NEWEST)],
)
def test_unsupported(version: str, nearest: str, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    rename_release(environment, version)
    said = check(capsys, 1, environment)
    assert f": uvicorn {version}: unsupported release (the nearest: {nearest})\n" in said
    assert f"install uvicorn=={nearest.split()[-1]}" in said
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    assert trees.snapshot(environment.path) == before


def test_not_installed(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    for path in environment.site_packages.glob("uvicorn*"):
        shutil.rmtree(path)
    assert check(capsys, 1, environment, only=[]).startswith(f"{environment.path}: gunicorn "), "as good as any"
    assert ": uvicorn: not installed\n" in check(capsys, 2, environment), "neither patched nor unpatched"
    [report] = as_json(capsys, environment)
    assert report["installed"][0]["state"] == "not installed" and report["patched"] is None
    shutil.rmtree(environment.site_packages / "gunicorn")
    for path in environment.site_packages.glob("gunicorn-*"):
        shutil.rmtree(path)
    assert ": uvicorn: not installed\n" in check(capsys, 2, environment, only=[])


def test_without_its_dist_info(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(dist_info(environment))
    said = check(capsys, 1, environment)
    assert ": uvicorn: broken installation (expected its dist-info in " in said
    assert f"  found:    {environment.site_packages}/uvicorn/__init__.py alone\n" in said


def test_an_interrupted_upgrade(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """Which leaves two dist-infos: it is the newer one that is to be installed."""
    older = environment.site_packages / "uvicorn-0.9.0.dist-info"
    shutil.copytree(dist_info(environment), older)
    (older / "METADATA").write_text("Version: 0.9.0\n")
    said = check(capsys, 1, environment)
    assert f"  found:    uvicorn-{trees.NEWEST}.dist-info and {older.name}\n" in said
    assert f"install --force-reinstall --no-deps uvicorn=={trees.NEWEST} " in said


@pytest.mark.parametrize("level", range(3), ids=["site-packages", "python3", "lib"])
def test_no_directory_of_packages(level: int, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    path = [environment.site_packages, *environment.site_packages.parents][level]
    shutil.rmtree(path)
    path.touch()
    for option, said in (("--check", "cannot look at"), ("--no-tests", "cannot ")):
        assert apply.main([option, str(environment.path)]) == 2
        output = "".join(capsys.readouterr())
        trees.check_four_lines(output, said)
        assert "Not a directory" in output


def test_no_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main(["--check", str(tmp_path / "none"), str(tmp_path)]) == 2
    assert capsys.readouterr().out == "".join(
        f"{path} is not a virtual environment\n" for path in (tmp_path / "none", tmp_path)
    )
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to("gone")
    assert apply.main(["--check", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    trees.check_four_lines(said, f"{tmp_path} has lost its Python")
    assert f"found:    a link to {tmp_path}/bin/gone, which is not there\n" in said
    python.unlink()
    python.touch()
    assert apply.main(["--check", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    trees.check_four_lines(said, f"{tmp_path} is not an environment with packages of its own")
    assert "see docs/installations.md" in said
    for number in ("3.11", "3.12"):  # Neither tells which one it is
        (tmp_path / "lib" / f"python{number}" / "site-packages").mkdir(parents=True)
    assert apply.main(["--check", str(tmp_path)]) == 2
    assert "lib/python3.11/site-packages and " in capsys.readouterr().out


LAYOUTS = {
    "venv": ("python3.11", "home = /usr/bin\nversion = 3.11.7\n", "", "3.11.7"),
    "virtualenv": ("python3.11", "home = /usr/bin\nversion_info = 3.11.7.final.0\n", "", "3.11.7"),
    "conda": ("python3.11", "", "python3.11", "3.11"),
    "without its thread lock": ("python3.13t", "version = 3.13.1\n", "", "3.13.1"),
    "PyPy": ("pypy3.9", "version = 3.9.1\n", "", "3.9.1"),
    "nothing but the directory": ("python3.11", "", "", "python3.11"),
}


@pytest.mark.parametrize("library, settings, link, version", LAYOUTS.values(), ids=LAYOUTS)
def test_its_python_is_not_run(library: str, settings: str, link: str, version: str, tmp_path: Path) -> None:
    """What the environment is can be seen: root may look at those of others."""
    site_packages = tmp_path / "lib" / library / "site-packages"
    site_packages.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / (link or "python")
    python.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    python.chmod(0o755)
    if link:
        (tmp_path / "bin" / "python").symlink_to(link)
    if settings:
        (tmp_path / "pyvenv.cfg").write_text(settings)
    found = find(tmp_path)
    assert (found.site_packages, found.version) == (site_packages, version)
    for options in (["--check"], ["--no-tests"], ["--revert"], ["--dry-run"], ["--tests-only"]):
        apply.main([*options, str(tmp_path)])
    assert not (tmp_path / "run").exists()


SEEN = ("lib/{}/site-packages", "local/lib/{}/dist-packages", "lib/python3/dist-packages", "a project")


@pytest.mark.parametrize("place", SEEN)
def test_what_it_sees_elsewhere(
    place: str, environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its base with --system-site-packages, and by a .pth file; there it is for all who see it."""
    beyond = tmp_path / "base" / place.format(environment.site_packages.parent.name)
    beyond.mkdir(parents=True)
    for path in environment.site_packages.glob("uvicorn*"):
        shutil.move(path, beyond / path.name)
    settings = f"home = {tmp_path}/base/bin\nversion = {environment.version}\n"
    (environment.path / "pyvenv.cfg").write_text(settings)
    assert ": uvicorn: not installed\n" in check(capsys, 2, environment)
    if place == "a project":  # After a line of code that is longer than any path may be
        (environment.site_packages / "some.pth").write_text(f"import sys; {'sys; ' * 1000}\n{beyond}\n")
    else:
        (environment.path / "pyvenv.cfg").write_text(f"{settings}include-system-site-packages = true\n")
    for option in ("--no-tests", "--tests-only"):
        assert apply.main([option, str(environment.path)]) == 2
        trees.check_four_lines(capsys.readouterr().err, "uvicorn lives outside")
    said = check(capsys, 1, environment)
    assert f": outside the environment ({beyond}/uvicorn/__init__.py)\n" in said
    assert f" --force-reinstall --no-deps uvicorn=={trees.NEWEST}" in said


def test_several(environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each; all must be patched."""
    other = trees.light(tmp_path / "other", trees.source(trees.NEWEST, "uvicorn-worker"))
    changed = trees.light(tmp_path / "changed", trees.source())
    (changed.site_packages / "uvicorn" / "workers.py").write_text("x = 1\n")
    for one in (environment, other):
        apply.main(["--no-tests", str(one.path)])
    said = check(capsys, 0, environment, other, only=[])
    assert [line.split(":")[0] for line in said.splitlines()] == [str(environment.path), str(other.path)]
    assert ": uvicorn 0." in said and "; uvicorn-worker 0." in said
    assert len(check(capsys, 1, environment, other, changed, only=[]).splitlines()) == 3
    assert [report["patched"] for report in as_json(capsys, environment, other, changed, only=[])] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["loop", "x" * 300], ids=["loop", "long"])
def test_a_path_that_leads_nowhere(
    name: str, environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several the others are still told."""
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    for options in ([], ["--no-tests"], ["--revert"], ["--check"]):
        assert apply.main([*options, str(path)]) == 2
        output = capsys.readouterr()
        trees.check_four_lines(output.out if options == ["--check"] else output.err, f"cannot look at {path}")
    assert apply.main(["--check", str(environment.path), str(path), str(environment.path)]) == 2
    one, middle, other = capsys.readouterr().out.splitlines()
    assert one == other and one.startswith(f"{environment.path}: uvicorn")
    assert middle.startswith(f"cannot look at {path}")


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Nobody can tell what a path is relative to."""
    gone = tmp_path / "gone"
    gone.mkdir()
    for option in ("--no-tests", "--check"):
        shell = ["bash", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', gone]
        module = [sys.executable, "-m", "usr1.apply.apply", option, "venv"]
        answer = environments.run(*shell, *module, PYTHONPATH=str(patches.PATCHES.parent / "scripts"))
        gone.mkdir()
        assert answer.returncode == 2 and "Traceback" not in answer.stdout, answer.stdout
        assert "expected: " in answer.stdout


def test_an_interrupted_run(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """The code is patched, but there is work left, which --check says and the next run does."""
    apply.main(["--no-tests", str(environment.path)])
    done = trees.snapshot(environment.path)
    left = environment.site_packages / "uvicorn" / f".workers.py.x{installed.UNFINISHED}"
    left.write_text("half a fi")
    assert "; an earlier run was interrupted, run scripts/apply.sh to finish it" in check(capsys, 0, environment)
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == done
