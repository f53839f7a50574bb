"""Environments of every kind, as other people have them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict

import environments
import pytest
from usr1 import patches
from usr1.apply import apply, installed
from usr1.apply.environment import Environment, find
from usr1.apply.installed import State
from usr1.refusal import Refusal

from test_apply import changing, trees

NOBODY = 65534


def states(environment: Environment) -> Dict[str, State]:
    return {one.distribution: one.state for one in installed.find(environment)}


def check_both_ways(path: Path, environment: Environment) -> None:
    """Patch and put back what is at a path, which may be another name of the environment's."""
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(path)]) == 0
    assert set(states(environment).values()) == {State.PATCHED}
    assert trees.disagreements(environment) == [] and trees.stale(environment) == []
    changed = {name for name, entry in trees.snapshot(environment.path).items() if entry != before.get(name)}
    ours = {file for one in installed.find(environment) for file in one.written}
    assert {environment.path / name for name in changed if not name.endswith(".pyc")} <= ours
    assert apply.main(["--revert", str(path)]) == 0
    assert trees.snapshot(environment.path) == before


def test_both_distributions(tmp_path: Path) -> None:
    both = trees.light(tmp_path / "venv", trees.source(trees.NEWEST, "uvicorn-worker"), bytecode=True)
    assert set(states(both)) == {"uvicorn", "uvicorn-worker", "gunicorn"}
    check_both_ways(both.path, both)


def test_of_two_each_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = trees.source(trees.NEWEST, "uvicorn-worker")
    both = trees.light(tmp_path / "venv", source)

    def said(option: str) -> str:
        """What it says when uvicorn alone has been installed again since it was applied to both."""
        apply.main(["--no-tests", str(both.path)])
        for name in ("uvicorn", f"uvicorn-{trees.NEWEST}.dist-info"):
            shutil.rmtree(both.site_packages / name)
            shutil.copytree(source.site_packages / name, both.site_packages / name)
        capsys.readouterr()
        assert apply.main([option, str(both.path)]) == 0
        return capsys.readouterr().out

    assert re.findall(r"(\S+) \S+: patched .*, as before", said("--no-tests")) == ["uvicorn-worker", "gunicorn"]
    assert re.findall(r"(\S+) \S+ is as it was published", said("--revert")) == ["uvicorn"]


def test_one_that_cannot_be_patched_keeps_the_other_from_being_patched(tmp_path: Path) -> None:
    both = trees.light(tmp_path / "venv", trees.source(trees.NEWEST, "uvicorn-worker"))
    (both.site_packages / "uvicorn_worker" / "_workers.py").write_text("changed = True\n")
    before = trees.snapshot(both.path)
    assert apply.main(["--no-tests", str(both.path)]) == 2
    assert trees.snapshot(both.path) == before


def test_uvicorn_worker_alone(tmp_path: Path) -> None:
    alone = trees.light(tmp_path / "venv", trees.source(trees.NEWEST, "uvicorn-worker"))
    for name in ("uvicorn", f"uvicorn-{trees.NEWEST}.dist-info"):
        shutil.rmtree(alone.site_packages / name)
    check_both_ways(alone.path, alone)


@pytest.mark.parametrize(
    "release",
    [
        pytest.param(release, marks=[] if n % 5 == 0 else [pytest.mark.full])
        for n, release in enumerate(environments.COMBINATIONS)
    ],
)
def test_every_combination(release: str, tmp_path: Path) -> None:
    environment = trees.light(tmp_path / "venv", trees.source(release))
    check_both_ways(environment.path, environment)


@pytest.mark.parametrize("name", ["with spaces", "ümläut-日本", "quote'\"$(x)", "trailing/", os.fsdecode(b"\xff\xfe")])
def test_names(name: str, tmp_path: Path) -> None:
    environment = trees.light(tmp_path / name, trees.source(), bytecode=True)
    check_both_ways(Path(str(tmp_path) + os.sep + name), environment)


def test_relative(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(environment.path.parent)
    check_both_ways(Path("venv"), environment)
    monkeypatch.chdir(environment.path)
    check_both_ways(Path("."), environment)


def test_link_to_the_environment(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(environment.path)
    check_both_ways(tmp_path / "link", environment)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("level", range(3), ids=["site-packages", "python3", "lib"])
def test_links_inside_are_named(level: int, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    link = [environment.site_packages, *environment.site_packages.parents][level]
    link.rename(environment.path.parent / "elsewhere")
    link.symlink_to(environment.path.parent / "elsewhere")
    before = trees.snapshot(environment.path.parent)
    for option in ("--no-tests", "--revert", "--dry-run", "--tests-only", "--check"):
        assert apply.main([option, str(environment.path)]) == 2
        trees.check_four_lines("".join(capsys.readouterr()), f"{link} is a link")
    assert trees.snapshot(environment.path.parent) == before


def test_conda(environment: Environment) -> None:
    """It has no pyvenv.cfg, and its files are hard links to conda's cache of packages."""
    (environment.path / "pyvenv.cfg").unlink()
    (environment.path / "conda-meta").mkdir()
    cache = environment.path.parent / "pkgs"
    shutil.copytree(environment.site_packages, cache, copy_function=os.link)
    before = trees.snapshot(cache)
    check_both_ways(environment.path, environment)
    assert trees.snapshot(cache) == before


def test_hard_links_to_uv_s_cache(tmp_path: Path) -> None:
    """uv makes every environment from the same inodes: writing to one would write to all."""
    variables = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_LINK_MODE": "hardlink"}
    made = []
    for name in ("one", "other"):
        for command in (["venv", "-q", "--python", sys.executable], ["pip", "install", "-q", "--python"]):
            packages = [f"uvicorn=={trees.NEWEST}", "gunicorn"] if command[0] == "pip" else []
            subprocess.run([environments.UV, *command, tmp_path / name, *packages], env=variables, check=True)
        made.append(find(tmp_path / name))
    one, other = made
    files = [environment.site_packages / "uvicorn" / "workers.py" for environment in made]
    assert os.path.samefile(*files)
    shared = [trees.snapshot(path) for path in (other.path, tmp_path / "cache")]
    assert apply.main(["--no-tests", str(one.path)]) == 0
    assert (states(one)["uvicorn"], states(other)["uvicorn"]) == (State.PATCHED, State.PRISTINE)
    assert [trees.snapshot(path) for path in (other.path, tmp_path / "cache")] == shared


def test_symbolic_links_to_uv_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are named, and what is advised ends them, whatever the user has set for uv."""
    for name, value in {"UV_CACHE_DIR": f"{tmp_path}/cache", "UV_LINK_MODE": "symlink"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{environments.UV.parent}:{os.environ['PATH']}")
    venv = tmp_path / "venv"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, venv], check=True)
    packages = [f"uvicorn=={trees.NEWEST}", "gunicorn"]
    subprocess.run(["uv", "pip", "install", "-q", "--python", venv, *packages], check=True)
    environment = find(venv)
    assert apply.main(["--no-tests", str(venv)]) == 2
    assert "--only" not in capsys.readouterr().err, "the other one would be refused too"
    for distribution in ("uvicorn", "gunicorn"):
        [metadata] = environment.site_packages.glob(f"{distribution}-*.dist-info/METADATA")
        found = f"{metadata}, a link to {metadata.resolve()}"
        assert apply.main(["--check", "--only", distribution, str(venv)]) == 1
        said = capsys.readouterr().out
        assert f": outside the environment ({found})\n" in said, said
        advice = re.search(r"do: +(.*), then run this again", said)
        assert advice and "--link-mode copy" in advice[1]
        subprocess.run(f"{advice[1]} -q", shell=True, check=True)
    assert apply.main(["--no-tests", str(venv)]) == 0


def test_symbolic_links_to_another_cache_are_refused(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """As conda makes them, where it cannot make hard links."""
    file = environment.site_packages / "uvicorn" / "workers.py"
    elsewhere = file.rename(environment.path.parent / "workers.py")
    file.symlink_to(elsewhere)
    check_refused(environment, capsys, "lives outside", str(elsewhere))


def check_refused(environment: Environment, capsys: pytest.CaptureFixture[str], *said: str) -> None:
    before = trees.snapshot(environment.path)
    assert apply.main(["--no-tests", str(environment.path)]) == 2
    error = capsys.readouterr().err
    for words in ("apply.sh: ", "expected: ", "found: ", "do: ", *said):
        assert words in error
    assert trees.snapshot(environment.path) == before


def test_system_site_packages_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The uvicorn that an environment only sees is for all who see it."""
    base = trees.light(tmp_path / "base", trees.source())
    environment = trees.light(tmp_path / "venv", trees.source())
    for path in environment.site_packages.glob("uvicorn*"):
        shutil.rmtree(path)
    (environment.site_packages / "base.pth").write_text(f"{base.site_packages}\n")
    check_refused(environment, capsys, "uvicorn lives outside", str(base.site_packages))
    assert apply.main(["--tests-only", str(environment.path)]) == 2
    assert "uvicorn lives outside" in capsys.readouterr().err


def test_a_pth_file_with_code(environment: Environment) -> None:
    """As packages of a namespace have it: a line longer than any path may be."""
    (environment.site_packages / "nspkg.pth").write_text(f"import sys; {'sys; ' * 1000}\n")
    assert apply.main(["--no-tests", str(environment.path)]) == 0


def test_editable_installs_are_refused(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    [dist_info] = environment.site_packages.glob("uvicorn-*.dist-info")
    (dist_info / "direct_url.json").write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
    check_refused(environment, capsys, "an editable install")


@pytest.mark.parametrize("python", environments.pythons().values(), ids=str)
def test_every_python(python: Path, tmp_path: Path) -> None:
    """It imports what is there now, whatever it, or an installer, has compiled before."""
    environment = trees.light(tmp_path / "venv", trees.source("0.13.2"), python=python)
    one = trees.only(environment)
    subprocess.run([str(python), "-I", "-S", "-c", _NEVER_CHECKED, *one.contents], check=True)
    for option, patched in (("--no-tests", "True"), ("--revert", "False")) * 2:
        assert apply.main([option, str(environment.path)]) == 0
        imported = [str(python), "-I", "-S", "-c", _IMPORTED, *map(str, one.contents)]
        assert subprocess.run(imported, stdout=subprocess.PIPE, text=True, check=True).stdout == f"{patched}\n"


_NEVER_CHECKED = """
import py_compile, sys
if sys.version_info >= (3, 7):
    py_compile.compile(sys.argv[1], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""

_IMPORTED = """
import marshal, sys
from importlib.machinery import SourceFileLoader
print(b"handle_usr1" in marshal.dumps(SourceFileLoader("workers", sys.argv[1]).get_code("workers")))
"""


@pytest.mark.root
def test_owner_and_mode_are_kept(environment: Environment) -> None:
    for path in environment.site_packages.rglob("*"):
        if os.getuid() == 0:
            os.chown(path, 12345, 54321)
        if path.is_file():
            path.chmod(0o640)
    check_both_ways(environment.path, environment)


def as_nobody(work: Callable[[], int]) -> int:
    """What some work returns without root's privileges, as the exit status of a process of its own."""
    patches.catalogue("uvicorn")  # Nobody may import what this needs, if it is in root's home
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os._exit(work())
        finally:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def apply_as_nobody(environment: Environment) -> int:
    return as_nobody(lambda: changing.status("apply", environment))


def refused(environment: Environment, advice: str) -> int:
    with pytest.raises(Refusal) as refusal:
        changing.make("apply", environment)
    return 2 if str(refusal.value).endswith(f"do:       {advice}") else 1


@pytest.mark.root
def test_read_only(environment: Environment, open_clone: None) -> None:
    """Or a file system without room, or anything that keeps the first byte from being written."""
    before = trees.snapshot(environment.path)
    open_to_all(environment)
    for path in [environment.site_packages, *environment.site_packages.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    locked = trees.snapshot(environment.path)
    advice = "run this again as user 0" if os.getuid() == 0 else "make it writable, then run this again"
    try:
        assert as_nobody(lambda: refused(environment, advice)) == 2
        assert trees.snapshot(environment.path) == locked != before
    finally:
        for path in [environment.site_packages, *environment.site_packages.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.root
def test_read_only_by_its_owner(environment: Environment, open_clone: None) -> None:
    """To be that user is no help."""
    open_to_all(environment)
    if os.getuid() == 0:
        for path in [environment.path, *environment.path.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    (environment.site_packages / "uvicorn").chmod(0o555)
    try:
        assert as_nobody(lambda: refused(environment, "make it writable, then run this again")) == 2
    finally:
        (environment.site_packages / "uvicorn").chmod(0o755)


def open_to_all(environment: Environment) -> None:
    """pytest's directories are for their owner alone."""
    for path in environment.site_packages.parents:
        if path.stat().st_uid == os.getuid() and "pytest" in str(path):
            path.chmod(0o755)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_files_of_others_are_refused(environment: Environment, open_clone: None) -> None:
    """In a directory that one may write to: the new file would be of another owner."""
    open_to_all(environment)
    for path in [environment.site_packages, *environment.site_packages.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    before = trees.snapshot(environment.path)
    assert apply_as_nobody(environment) == 2
    assert trees.snapshot(environment.path) == before


def test_not_to_be_looked_at(environment: Environment, open_clone: None) -> None:
    open_to_all(environment)
    environment.site_packages.chmod(0o300)
    try:
        assert apply_as_nobody(environment) == 2
    finally:
        environment.site_packages.chmod(0o755)


@pytest.mark.parametrize("option", ["--no-tests", "--check"])
def test_in_a_directory_of_others(
    option: str, environment: Environment, open_clone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> int:
        status = apply.main([option, str(environment.path)])
        trees.check_four_lines("".join(capsys.readouterr()), f"cannot look at {environment.path}")
        return status

    open_to_all(environment)
    environment.path.parent.chmod(0o000)
    try:
        assert as_nobody(said) == 2
    finally:
        environment.path.parent.chmod(0o700)
